"""The table of networks: names, options, sizes, messages."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from invariance_jax import models
from invariance_jax.errors import UserError
from invariance_jax.models.registry import ARCHITECTURES


def init_shapes(model, size):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def vit_count(patch, width, depth, size, classes=1000):
    block = 2 * 2 * width  # norms
    block += (width + 1) * 3 * width + (width + 1) * width  # attention
    block += (width + 1) * 4 * width + (4 * width + 1) * width  # perceptron
    embed = (3 * patch**2 + 1) * width + width + ((size // patch) ** 2 + 1) * width
    return embed + depth * block + 2 * width + (width + 1) * classes


# torchvision's and timm's published numbers, and formulas where there is none.
COUNTS = {
    "resnet8": (
        *(432 + 32, 2 * 2304 + 64, 4608 + 9216 + 128 + 512 + 64),
        *(18432 + 36864 + 256 + 2048 + 128, 64 * 1000 + 1000),
    ),
    "resnet18": (11_689_512,),
    "resnet34": (21_797_672,),
    "resnet50": (25_557_032,),
    "resnet101": (44_549_160,),
    "resnet152": (60_192_808,),
    "modified_resnet18": (11_689_512,),
    "vit_mu8": (vit_count(8, 64, 3, 224),),
    "vit_ti16": (5_717_416,),
    "vit_s32": (vit_count(32, 384, 12, 224),),
    "vit_s16": (22_050_664,),
    "vit_b32": (88_224_232,),
    "vit_b16": (86_567_656,),
    "vit_l16": (304_326_632,),
}


TORCHVISION = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}


def test_every_name_has_a_count_or_is_one_of_timm(golden_dir):
    # What timm's are made of, tests/models/test_variants.py compares.
    timm = json.loads((golden_dir / "networks.json").read_text())
    others = set(models.names()) - set(timm)
    assert others == {name for name in COUNTS if name not in timm} | set(TORCHVISION)
    for name, same in TORCHVISION.items():
        assert ARCHITECTURES[name] == ARCHITECTURES[same]


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count(name):
    leaves = jax.tree.leaves(init_shapes(models.create(name), 224)["params"])
    assert sum(leaf.size for leaf in leaves) == sum(COUNTS[name])
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_formula_for_vit_agrees_with_timm():
    assert vit_count(16, 192, 12, 224) == 5_717_416


def test_heads():
    # Parameter counts do not show them; timm's are 64 wide.
    fields = {name: ARCHITECTURES[name].fields for name in COUNTS if name.startswith("vit")}
    assert fields.pop("vit_mu8")["heads"] == 4
    assert {name: row["width"] // row["heads"] for name, row in fields.items()} == dict.fromkeys(
        fields, 64
    )


@pytest.mark.parametrize("name", ["resnet8", "vit_mu8"])
def test_num_classes(name):
    head = init_shapes(models.create(name, 10), 32)["params"]["head"]
    assert head["kernel"].shape == (64, 10) and head["bias"].shape == (10,)


def test_options_have_the_documented_defaults():
    defaults = {
        name: {option: getattr(models.create(name), option) for option in row.options}
        for name, row in ARCHITECTURES.items()
    }
    plain = {"stem": "imagenet", "stem_stride": 1, "avg_down": False, "blur_pool": False}
    assert defaults["resnet18"] == defaults["resnet152"] == plain
    assert defaults["resnet8"] == plain | {"stem": "cifar", "stem_stride": 2}
    assert defaults["resnet50d"] == plain | {"stem": "deep", "avg_down": True}
    assert defaults["resnetblur50"] == plain | {"blur_pool": True}
    pools = {"stage2_pool": True, "stage3_pool": True, "stage4_pool": True}
    del plain["blur_pool"]
    assert defaults["modified_resnet18"] == plain | pools
    # timm's defaults
    plain = {
        "mlp_ratio": 4.0,
        "activation": "gelu",
        "qkv_bias": True,
        "qk_norm": False,
        "init_values": None,
        "epsilon": 1e-6,
        "class_token": True,
        "reg_tokens": 0,
        "distilled": False,
        "no_embed_class": False,
        "pre_norm": False,
        "global_pool": "token",
        "fc_norm": None,
    }
    assert defaults["vit_b16"] == defaults["vit_mu8"] == plain
    registers = {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
    assert defaults["vit_base_patch14_reg4_dinov2"] == plain | registers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet81"},
            "unknown model 'resnet81'; did you mean 'resnet8'? one of: resnet8,",
        ),
        (
            {"name": "resnet18", "stam": "cifar"},
            "unknown option of model 'resnet18' 'stam'; did you mean 'stem'? "
            "one of: stem, stem_stride, avg_down, blur_pool",
        ),
        (
            {"name": "resnet18", "stage2_pool": True},
            "unknown option of model 'resnet18' 'stage2_pool'; one of: stem, stem_stride",
        ),
        (
            {"name": "vit_mu8", "stem": "cifar"},
            "unknown option of model 'vit_mu8' 'stem'; one of: mlp_ratio, activation, ",
        ),
        (
            {"name": "vit_mu8", "reg_tokens": -1},
            "option 'reg_tokens' of model 'vit_mu8' is -1; expected one of: a whole number",
        ),
        (
            {"name": "vit_mu8", "init_values": 0.0},
            "option 'init_values' of model 'vit_mu8' is 0.0; expected one of: None, a number above",
        ),
        (
            {"name": "vit_mu8", "class_token": False},
            "option 'class_token' of model 'vit_mu8' is False; expected global_pool='avg' with it",
        ),
        (
            {"name": "vit_mu8", "distilled": True, "global_pool": "avg"},
            "option 'distilled' of model 'vit_mu8' is True; expected global_pool='token' with it",
        ),
        (
            {"name": "vit_mu8", "activation": "swiglu", "mlp_ratio": 33 / 64},
            "option 'mlp_ratio' of model 'vit_mu8' makes 33 outputs, of which 'swiglu' gates",
        ),
        (
            {"name": "modified_resnet18", "blur_pool": True},
            "unknown option of model 'modified_resnet18' 'blur_pool'",
        ),
        (
            {"name": "resnet18", "stem": "cifer"},
            "option 'stem' of model 'resnet18' is 'cifer'; expected one of: 'imagenet', 'cifar',",
        ),
        (
            {"name": "resnet8", "stem_stride": 3},
            "option 'stem_stride' of model 'resnet8' is 3; expected one of: 1, 2",
        ),
        (
            {"name": "modified_resnet18", "stage2_pool": 1},
            "option 'stage2_pool' of model 'modified_resnet18' is 1; expected one of: False, True",
        ),
        (
            {"name": "resnet18", "stem_stride": 2},
            "option 'stem_stride' of model 'resnet18' is 2, but the imagenet stem has its own",
        ),
        (
            {"name": "resnet8", "dtype": "float16"},
            "unknown dtype 'float16'; did you mean 'bfloat16'? one of: float32, bfloat16",
        ),
        (
            {"name": "resnet8", "num_classes": -1},
            "num_classes of model 'resnet8' is -1; expected an integer of at least 0",
        ),
        (
            {"name": "resnet8", "ghost_batch_size": -1},
            "ghost_batch_size of model 'resnet8' is -1; expected an integer of at least 0",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        models.create(**arguments)
