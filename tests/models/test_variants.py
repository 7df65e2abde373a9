"""Every option of the networks gives timm's numbers, and every name is what timm's is made of."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import models
from invariance_jax.models.registry import ARCHITECTURES
from invariance_jax.models.vit import VisionTransformer
from invariance_jax.transforms import normalize

SMALL = {"patch": 8, "width": 32, "depth": 1, "heads": 2}
CLIP = {"pre_norm": True, "epsilon": 1e-5}
GAP = {"class_token": False, "global_pool": "avg"}
REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
SWIGLU = {"activation": "swiglu", "mlp_ratio": 2.66667 * 2}
VITS = {
    "plain": {},
    "layer_scale": {"init_values": 1e-5},
    "registers": REGISTERS,
    "registers_with_positions": {"reg_tokens": 2},
    "no_embed_class": {"no_embed_class": True},
    "distilled": {"distilled": True},
    "average": {"global_pool": "avg"},
    "average_without_class_token": GAP,
    "average_of_normalised": {**GAP, "fc_norm": False},
    "pre_norm": CLIP,
    "quick_gelu": {**CLIP, "activation": "quick_gelu"},
    "qk_norm": {"qk_norm": True},
    "without_qkv_bias": {"qkv_bias": False},
    "swiglu": SWIGLU,
}
PATCH14 = {"patch14": {}, "dinov2_giant": {**SWIGLU, **REGISTERS, "init_values": 1e-5}}
# Of one block in each of two stages: the row that it is cut from, what the row says here, options.
RESNETS = {
    "basic_deep": ("resnet18", {"stage_widths": (16, 32)}, {"stem": "deep"}),
    "basic_avg_down": ("resnet18", {}, {"avg_down": True}),
    "basic_blur": ("resnet18", {}, {"blur_pool": True}),
    "wide": ("wide_resnet50_2", {}, {}),
    "groups": ("resnext50_32x4d", {"cardinality": 8}, {}),
    "d": ("resnet50d", {"stage_widths": (16, 32)}, {}),
    "blur": ("resnetblur50", {}, {}),
}


@pytest.fixture
def small(monkeypatch):
    """Cuts a row of the table to a few units, under the name "small"."""

    def cut(name, **fields):
        row = ARCHITECTURES[name]
        row = dataclasses.replace(row, fields={**row.fields, **fields})
        monkeypatch.setitem(ARCHITECTURES, "small", row)

    return cut


@pytest.fixture(scope="module")
def golden(golden_dir):
    photo = np.load(golden_dir / "transforms.npz")["image_u8"]
    found = np.load(golden_dir / "networks.npz")

    def compare(case, side, options, draw_weights):
        crop = photo[100 : 100 + side, 60 : 60 + side]
        images = np.stack([crop, crop[:, ::-1]]).astype(np.float32) / 255
        shapes = models.weight_shapes("small", 10, image_size=side, **options)
        variables = models.import_weights("small", draw_weights(shapes), **options)
        module = models.create("small", 10, **options)
        apply = jax.jit(lambda v, x: module.apply(v, x, train=False))
        logits, features = apply(variables, normalize(jnp.asarray(images)))
        for ours, key in ((logits, "logits"), (features["embedding"], "embedding")):
            expected = found[f"{case}/{key}"]
            assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
            assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max(), key

    return compare


@pytest.mark.parametrize("case", VITS | PATCH14)
def test_options_of_vision_transformers_equal_timm(case, small, golden, draw_weights):
    patch = 14 if case in PATCH14 else 8
    small("vit_mu8", **{**SMALL, "patch": patch})
    options = (VITS | PATCH14)[case]
    golden(f"vit/{case}", 28 if case in PATCH14 else 32, options, draw_weights)


@pytest.mark.parametrize("case", RESNETS)
def test_options_of_resnets_equal_timm(case, small, golden, draw_weights):
    row, fields, options = RESNETS[case]
    small(row, **{"stage_sizes": (1, 1), "stage_widths": (64, 32), **fields})
    golden(f"resnet/{case}", 33, options, draw_weights)


ACTIVATIONS = {"gelu": "GELU", "quick_gelu": "QuickGELU", "swiglu": "SiLU"}


def described(module):
    """What a network is made of, in the words of networks.json."""
    if isinstance(module, VisionTransformer):
        same = ("patch", "width", "depth", "heads", "qkv_bias", "qk_norm", "init_values", "epsilon")
        same += ("class_token", "reg_tokens", "distilled", "embedded_prefix", "pre_norm")
        same += ("global_pool", "norm_after_pool")
        return {name: getattr(module, name) for name in same} | {
            "hidden": int(module.mlp_ratio * module.width),
            "activation": ACTIVATIONS[module.activation],
        }
    inner = module.base_width * module.cardinality if module.bottleneck else module.stage_widths[0]
    outputs = [width * (4 if module.bottleneck else 1) for width in module.stage_widths]
    width = module.stage_widths[0]
    return {
        "stage_sizes": list(module.stage_sizes),
        "stage_widths": outputs[:-1],
        "bottleneck": module.bottleneck,
        "inner": inner,
        "groups": module.cardinality,
        "stem": [width // 2, width // 2, width] if module.stem == "deep" else [width],
        "avg_down": module.avg_down,
        "blur_pool": module.blur_pool,
    }


def test_names_are_made_of_what_timm_makes_them_of(golden_dir):
    expected = json.loads((golden_dir / "networks.json").read_text())
    assert len(expected) > 70
    for name, made_of in expected.items():
        assert described(models.create(name)) == made_of, name


@pytest.mark.parametrize(("case", "old", "new"), [("smaller", 7, 4), ("larger", 4, 7)])
def test_position_embeddings_are_resampled_as_timm_does(
    case, old, new, small, golden_dir, draw_weights
):
    small("vit_mu8", **{**SMALL, "width": 8})
    weights = draw_weights(models.weight_shapes("small", 10, image_size=8 * old))
    variables = models.import_weights("small", weights, image_size=8 * new)
    expected = np.load(golden_dir / "networks.npz")[f"pos_embed/{case}"]
    np.testing.assert_allclose(variables["params"]["pos_embed"], expected, atol=1e-7)
    as_they_are = models.import_weights("small", weights, image_size=8 * old)
    np.testing.assert_array_equal(as_they_are["params"]["pos_embed"], weights["pos_embed"])
