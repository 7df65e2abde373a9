"""Files as people have them: each form of docs/models.md is read, or refused with what to do.

Our arrays get the names and axes of a form, are written, and are read back.
"""

import argparse
import contextlib
import json
import pathlib
import pickle
import re
import sys
import types

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from invariance_jax import models
from invariance_jax.errors import UserError
from invariance_jax.models.forms import to_timm
from invariance_jax.models.weights import import_weights

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "models.md"
LAYER = re.compile(
    r"blocks\.(\d+)\.(norm1|attn\.qkv|attn\.proj|ls1|norm2|mlp\.fc1|mlp\.fc2|ls2)\.(.+)"
)


def rename(arrays, top, layers, blocks):
    """Other names: of what is outside of the blocks, of a block's layers, of the blocks."""
    found = {}
    for key, value in arrays.items():
        if inner := LAYER.fullmatch(key):
            names, before = layers.get(inner[2], inner[2]), blocks.format(inner[1])
            names = (names,) if isinstance(names, str) else names
            for name, part in zip(names, np.split(value, len(names)), strict=True):
                found[f"{before}{name}{'' if name.endswith('_') else '.'}{inner[3]}"] = part
        else:
            layer, _, leaf = key.rpartition(".")
            found[f"{top[layer]}.{leaf}" if layer in top else top.get(key, key)] = value
    return found


def torchvision(arrays):
    top = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "norm": "encoder.ln",
        "head": "heads.head",
    }
    layers = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv": "self_attention.in_proj_",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }
    return rename(arrays, top, layers, "encoder.layers.encoder_layer_{}.")


def clip(arrays):
    top = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre",
        "norm": "ln_post",
    }
    layers = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv": "attn.in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    tower = rename(arrays, top, layers, "transformer.resblocks.{}.")
    tower["class_embedding"] = tower["class_embedding"].reshape(-1)
    tower["positional_embedding"] = tower["positional_embedding"][0]
    tower["proj"] = np.zeros((64, 32), np.float32)
    texts = {
        "positional_embedding": np.ones((77, 8)),
        "transformer.resblocks.0.ln_1.weight": np.ones(8),
        "logit_scale": np.ones(()),
    }
    return {f"visual.{key}": value for key, value in tower.items()} | texts


def clip_of_hugging_face(arrays):
    top = {
        "cls_token": "embeddings.class_embedding",
        "norm_pre": "pre_layrnorm",
        "pos_embed": "embeddings.position_embedding.weight",
        "patch_embed.proj": "embeddings.patch_embedding",
        "norm": "post_layernorm",
    }
    layers = {
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.proj": "self_attn.out_proj",
        "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    }
    tower = rename(arrays, top, layers, "encoder.layers.{}.")
    tower["embeddings.class_embedding"] = tower["embeddings.class_embedding"].reshape(-1)
    tower["embeddings.position_embedding.weight"] = tower["embeddings.position_embedding.weight"][0]
    tower["embeddings.position_ids"] = np.arange(17)[None]
    texts = {
        "text_model.embeddings.token_embedding.weight": np.ones((9, 8)),
        "visual_projection.weight": np.ones((8, 64)),
    }
    return {f"vision_model.{key}": value for key, value in tower.items()} | texts


def hugging_face(prefix, **more):
    def make(arrays):
        top = {
            "cls_token": "embeddings.cls_token",
            "pos_embed": "embeddings.position_embeddings",
            "patch_embed.proj": "embeddings.patch_embeddings.projection",
            "norm": "layernorm",
            "dist_token": "embeddings.distillation_token",
        }
        attention = "attention.attention."
        layers = {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
            "attn.qkv": tuple(attention + name for name in ("query", "key", "value")),
            "attn.proj": "attention.output.dense",
        }
        heads = {"head": "classifier", "head_dist": "distillation_classifier"} | more
        inner = {key: x for key, x in arrays.items() if not key.startswith("head")}
        outer = {key: x for key, x in arrays.items() if key.startswith("head")}
        inner = rename(inner, top, layers, "encoder.layer.{}.")
        return {prefix + key: x for key, x in inner.items()} | rename(outer, heads, {}, "")

    return make


def dinov2_of_hugging_face(arrays):
    top = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    layers = {
        "ls1": "layer_scale1",
        "ls2": "layer_scale2",
        "attn.proj": "attention.output.dense",
        "attn.qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
    }
    found = rename(arrays, top, layers, "encoder.layer.{}.")
    found = {re.sub(r"gamma$", "lambda1", key): x for key, x in found.items()}
    found["embeddings.mask_token"] = np.zeros((1, 64), np.float32)
    classifier = {"classifier.weight": np.ones((10, 128)), "classifier.bias": np.ones(10)}
    return {f"dinov2.{key}": x for key, x in found.items()} | classifier


def resnet_of_hugging_face(arrays):
    found = {}
    for key, value in arrays.items():
        kind = "convolution" if value.ndim == 4 else "normalization"
        leaf = key.rpartition(".")[2]
        if inner := re.fullmatch(r"layer(\d)\.(\d)\.(conv|bn|downsample\.)(\d)\..*", key):
            stage, block, layer, number = inner.groups()
            where = "shortcut" if layer == "downsample." else f"layer.{int(number) - 1}"
            before = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{where}"
            found[f"{before}.{kind}.{leaf}"] = value
        elif key.startswith("fc."):
            found[f"classifier.1.{leaf}"] = value
        else:
            found[f"resnet.embedder.embedder.{kind}.{leaf}"] = value
    return found


def google(arrays, *, position="Transformer/posembed_input/pos_embedding", numbers=(2, 1, 3)):
    """Flax's axes: inputs before outputs, an axis for the heads."""
    norm2, attention, mlp = numbers
    attention, mlp = f"MultiHeadDotProductAttention_{attention}/", f"MlpBlock_{mlp}/"
    found = {"cls": arrays["cls_token"], position: arrays["pos_embed"]}
    names = {"patch_embed.proj": "embedding", "norm": "Transformer/encoder_norm", "head": "head"}
    layers = {
        "norm1": "LayerNorm_0",
        "norm2": f"LayerNorm_{norm2}",
        "mlp.fc1": f"{mlp}Dense_0",
        "mlp.fc2": f"{mlp}Dense_1",
        "attn.proj": f"{attention}out",
    }
    for key, value in arrays.items():
        layer, _, leaf = key.rpartition(".")
        ours = "bias" if leaf == "bias" else "scale" if "norm" in layer else "kernel"
        if layer in names:
            axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[value.ndim]
            found[f"{names[layer]}/{ours}"] = value.transpose(axes)
        elif inner := LAYER.fullmatch(key):
            before = f"Transformer/encoderblock_{inner[1]}/"
            if inner[2] == "attn.qkv":
                for name, part in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                    shape = (64, 4, 16) if leaf == "weight" else (4, 16)
                    found[f"{before}{attention}{name}/{ours}"] = part.T.reshape(shape)
            elif inner[2] == "attn.proj" and leaf == "weight":
                found[f"{before}{attention}out/kernel"] = value.T.reshape(4, 16, 64)
            else:
                found[f"{before}{layers[inner[2]]}/{ours}"] = value.T
    return found


def big_vision(arrays):
    found = google(arrays, position="pos_embedding", numbers=(1, 0, 0))
    stacked = {}
    for key, value in found.items():
        if inner := re.fullmatch(r"Transformer/encoderblock_\d/(.*)", key):
            stacked.setdefault(f"params/Transformer/encoderblock/{inner[1]}", []).append(value)
        else:
            stacked[f"params/{key}"] = value
    return {key: np.stack(x) if isinstance(x, list) else x for key, x in stacked.items()}


def before(prefix):
    return lambda arrays: {prefix + key: value for key, value in arrays.items()}


def beside(*pairs, **more):
    """One copy of the network for each pair of a prefix and a factor, and other arrays."""
    return lambda arrays: (
        more
        | {
            prefix + key: value * np.float32(factor)
            for prefix, factor in pairs
            for key, value in arrays.items()
        }
    )


def headless(arrays):
    return {key: x for key, x in arrays.items() if not key.startswith(("head", "fc"))}


def with_(*names):
    """Arrays that no network has, of any shape."""
    return lambda arrays: arrays | {name: np.ones((2, 2), np.float32) for name in names}


def chain(*steps):
    def make(arrays):
        for step in steps:
            arrays = step(arrays)
        return arrays

    return make


def dinov2(arrays):
    """The class token lacks its position, which stands before those of the patches."""
    found = {re.sub("reg_token", "register_tokens", key): x for key, x in arrays.items()}
    first = np.full((1, 1, 64), 0.25, np.float32)
    found["cls_token"] = found["cls_token"] - first
    found["pos_embed"] = np.concatenate([first, found["pos_embed"]], axis=1)
    found = {
        k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): x for k, x in found.items()
    }
    return found | {"mask_token": np.zeros((1, 64), np.float32)}


def deit3(arrays):
    return {re.sub(r"ls(\d)\.gamma", r"gamma_\1", key): x for key, x in arrays.items()}


def half(arrays):
    return {key: x.astype(ml_dtypes.bfloat16) for key, x in arrays.items()}


VIT, RESNET = ("vit_mu8", {}), ("resnet8", {})
CLIP = ("vit_mu8", {"pre_norm": True, "epsilon": 1e-5, "activation": "quick_gelu"})
SCALED = ("vit_mu8", {"init_values": 1e-5})
REGISTERS = {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}
GAP = {"class_token": False, "global_pool": "avg"}
SWIGLU = {"activation": "swiglu", "mlp_ratio": 5.0}
DISTILLED = ("vit_mu8", {"distilled": True})
MAE_DECODER = (
    "decoder_pos_embed",
    "decoder_embed.weight",
    "decoder_blocks.0.norm1.weight",
    "mask_token",
)
# By the first column of docs/models.md: the network, what its arrays become, what is kept of them.
READ = {
    "timm": (VIT, lambda a: a, None),
    "timm's `train.py`": (RESNET, beside(("state_dict.", 1), ("state_dict_ema.", 2)), None),
    "torchvision's ResNets": (RESNET, lambda a: a, None),
    "torchvision's ViTs": (VIT, torchvision, None),
    "torchvision's reference training": (
        RESNET,
        beside(("model.", 1), ("model_ema.module.", 2)),
        None,
    ),
    "Lightning": (VIT, chain(before("state_dict.model."), with_("state_dict.loss.weight")), None),
    "DistributedDataParallel, `torch.compile`, FSDP": (VIT, before("module._orig_mod."), None),
    "DINO's backbone": (VIT, headless, headless),
    "DINO's training checkpoint": (
        VIT,
        chain(
            headless,
            beside(
                ("student.module.backbone.", 2),
                ("teacher.backbone.", 1),
                **{"teacher.head.mlp.0.weight": np.ones((2, 2))},
            ),
        ),
        headless,
    ),
    "MoCo v3": (
        VIT,
        chain(
            headless,
            with_("head.0.weight", "head.1.running_mean"),
            beside(("module.base_encoder.", 1), ("module.momentum_encoder.", 2)),
        ),
        headless,
    ),
    "MadryLab's robustness": (
        RESNET,
        beside(("model.module.model.", 1), ("model.module.attacker.model.", 1)),
        None,
    ),
    "MAE": (VIT, chain(headless, with_(*MAE_DECODER), before("model.")), headless),
    "MAE fine-tuned": (("vit_mu8", {"global_pool": "avg"}), before("model."), None),
    "DeiT": (VIT, before("model."), None),
    "DeiT, distilled": (DISTILLED, before("model."), None),
    "DeiT III": (SCALED, deit3, None),
    "DINOv2": (SCALED, chain(headless, with_("mask_token")), headless),
    "DINOv2 with registers, ViT-g": (
        ("vit_mu8", {**REGISTERS, **SWIGLU}),
        chain(headless, dinov2),
        headless,
    ),
    "CLIP (OpenAI, open_clip)": (CLIP, chain(headless, clip), headless),
    "open_clip with timm's tower": (
        VIT,
        chain(headless, before("visual.trunk."), with_("text.w")),
        headless,
    ),
    "Google's ViT, AugReg": (VIT, google, None),
    "big_vision": (VIT, big_vision, None),
    "Hugging Face ViT": (VIT, chain(hugging_face("vit."), with_("vit.pooler.dense.weight")), None),
    "Hugging Face DeiT": (DISTILLED, hugging_face("deit.", head="cls_classifier"), None),
    "Hugging Face ViTMAE": (
        VIT,
        chain(headless, hugging_face("vit."), with_("decoder.decoder_embed.weight")),
        headless,
    ),
    "Hugging Face DINOv2": (SCALED, chain(headless, dinov2_of_hugging_face), headless),
    "Hugging Face CLIP": (CLIP, chain(headless, clip_of_hugging_face), headless),
    "Hugging Face ResNet": (RESNET, resnet_of_hugging_face, None),
    "bfloat16, float16, float8": (VIT, half, half),
}


@pytest.fixture(scope="module")
def ours(draw_weights):
    """Arrays of a network with 10 classes for 32 pixels, by timm's names."""
    known = {}

    def draw(name, options):
        key = name, *sorted(options.items())
        if key not in known:
            size = {} if name == "resnet8" else {"image_size": 32}
            known[key] = draw_weights(models.weight_shapes(name, 10, **size, **options))
        return dict(known[key])

    return draw


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        arrays = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        safetensors.numpy.save_file(arrays, path)


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # A class token that lacked its position is added up anew.
        found_here = np.asarray(found[key], np.float32)
        np.testing.assert_allclose(found_here, value.astype(np.float32), rtol=0, atol=1e-7)


@pytest.mark.parametrize("form", READ)
def test_forms_are_read(form, ours, tmp_path):
    (name, options), make, kept = READ[form]
    arrays = ours(name, options)
    path = tmp_path / ("w.npz" if form.startswith(("Google", "big_vision")) else "w.safetensors")
    write(path, make(arrays))
    which = "ema" if form.startswith("DINO's training") else "auto"
    found, _ = to_timm(models.load_weights(path), which)
    same(found, kept(arrays) if kept else arrays)


def refused(arrays, name="vit_mu8", **options):
    with pytest.raises(UserError) as error:
        import_weights(name, arrays, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


REFUSED = {
    "SigLIP": (with_("head.attention.in_proj_weight"), "SigLIP pools by attention"),
    "CLIP's ResNets": (with_("attnpool.c_proj.weight"), "CLIP's ResNets pool by attention"),
    "Swin, BEiT": (with_("blocks.0.attn.relative_position_bias_table"), "relative positions"),
    "DINOv3, EVA-02": (with_("rope_embed.periods", "storage_tokens"), "DINOv3 and EVA-02 turn q"),
    "DINOv3 of timm, of Hugging Face": (
        lambda arrays: {key: x for key, x in arrays.items() if key != "pos_embed"},
        "this vision transformer has no position embeddings",
    ),
    "ConvNeXt": (lambda a: with_("stages.0.blocks.0.conv_dw.weight")({}), "this is a ConvNeXt"),
    "SE-ResNets": (with_("layer1.0.se.fc1.weight"), "squeeze-and-excitation"),
    "antialiased-cnns": (with_("layer2.0.conv2.0.filt"), "package antialiased-cnns"),
    "LoRA adapters": (lambda a: with_("blocks.0.attn.qkv.lora_A.weight")({}), "an adapter (LoRA)"),
    "quantised weights": (with_("blocks.0.attn.qkv.weight_scale"), "quantised, with scales"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_networks_are_refused_with_what_to_do(form, ours):
    make, message = REFUSED[form]
    error = refused(make(ours(*VIT)))
    assert message in error and "ij.measure, takes any network of PyTorch" in error


CONTAINERS = {
    "Keras `.h5`": ("w.h5", "this is Keras's form; load it by"),
    "Flax `.msgpack`": ("w.msgpack", "this is Flax's form; load it by"),
    "`.onnx`": ("w.onnx", "run it by onnxruntime"),
    "`.pkl`": ("w.pkl", "a pickle can run code"),
}


@pytest.mark.parametrize("form", CONTAINERS)
def test_other_containers_are_refused_with_what_to_do(form, tmp_path):
    file, message = CONTAINERS[form]
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=message):
        models.load_weights(tmp_path / file)


def test_the_page_lists_what_is_tested():
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    listed = {row[0].removeprefix("| "): row[1] for row in rows if row[1] in ("read", "refused")}
    in_torch = {"TorchScript (OpenAI's CLIP files)", "Python objects in a checkpoint"}
    assert {form for form, what in listed.items() if what == "read"} == READ.keys()
    others = {form for form, what in listed.items() if what == "refused"}
    assert others == REFUSED.keys() | CONTAINERS.keys() | in_torch


def test_the_moving_average_is_read_when_asked(ours, tmp_path, capsys):
    arrays = ours(*RESNET)
    both = beside(("state_dict.", 1), ("state_dict_ema.", 2))(arrays)
    doubled = {key: 2 * value for key, value in arrays.items()}
    same(to_timm(both, "ema")[0], doubled)
    alone = {key: x for key, x in both.items() if key.startswith("state_dict_ema")}
    same(to_timm(alone)[0], doubled)
    message = "which_weights is 'ema', but the weights hold state_dict alone; expected 'auto'"
    plain = before("state_dict.")(arrays)
    assert refused(plain, "resnet8", which_weights="ema") == message
    assert "unknown choice of which_weights 'emo'" in refused(both, "resnet8", which_weights="emo")
    write(tmp_path / "w.safetensors", both)
    models.load_model("resnet8", tmp_path / "w.safetensors", image_size=32)
    said = capsys.readouterr().out
    assert "'state_dict.' is read; which_weights='ema' reads the moving average" in said


def test_what_is_meant_is_asked_where_there_are_several(ours):
    arrays = ours(*VIT)
    dino = beside(("student.", 1), ("teacher.", 2))(arrays)
    assert "which is meant: which_weights='plain' or 'ema'" in refused(dino)
    same(to_timm(dino, "plain")[0], arrays)
    two = beside(("left.", 1), ("right.", 2))(arrays)
    assert "weights hold 2 networks (left, right); save alone the one" in refused(two)


def test_what_is_left_out_is_said(ours, tmp_path, capsys):
    arrays = chain(headless, with_(*MAE_DECODER), before("model."), with_("epoch"))(ours(*VIT))
    write(tmp_path / "w.safetensors", arrays)
    models.load_model("vit_mu8", tmp_path / "w.safetensors", image_size=32)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[0].endswith("left out: what stands beside 'model.' (epoch)")
    assert "left out: the decoder (decoder_blocks.0.norm1.weight, decoder_embed.weight, " in said[1]
    arrays = ours(*VIT) | {"head.weight": np.ones((10, 128), np.float32)}
    write(tmp_path / "w.safetensors", arrays)
    model = models.load_model("vit_mu8", tmp_path / "w.safetensors", image_size=32)
    assert "left out: a head that sees 128 numbers, not 64" in capsys.readouterr().out
    assert model.num_classes is None


@pytest.mark.parametrize(
    ("name", "options", "given", "message"),
    [
        ("vit_mu8", REGISTERS, "vit_mu8", "they fit vit_mu8(init_values=1e-05, reg_tokens=4, no_"),
        ("vit_mu8", {"distilled": True}, "vit_mu8", "they fit vit_mu8(distilled=True); "),
        ("vit_mu8", {"qk_norm": True}, "resnet8", "they fit vit_mu8(qk_norm=True); "),
        ("vit_mu8", {"global_pool": "avg"}, "vit_mu8", "they fit vit_mu8(global_pool='avg'); "),
        ("vit_mu8", GAP, "vit_mu8", "they fit vit_mu8(class_token=False, global_pool='avg'); "),
        ("vit_mu8", {**GAP, "fc_norm": False}, "vit_mu8", "_token=False, global_pool='avg', fc_"),
        ("vit_mu8", {"no_embed_class": True}, "vit_mu8", "they fit vit_mu8(no_embed_class=True); "),
        ("vit_mu8", SWIGLU, "vit_mu8", "they fit vit_mu8(mlp_ratio=5.0, activation='swiglu'); "),
        ("vit_mu8", {}, "resnet8", "they fit vit_mu8; missing"),
        ("resnet8", {}, "vit_mu8", "they fit resnet8; missing"),
        ("resnet8", {"avg_down": True}, "resnet8", "they fit resnet8(avg_down=True); missing"),
    ],
)
def test_weights_of_another_network_say_which_it_is(name, options, given, message, ours):
    assert message in refused(ours(name, options), given)


def test_half_a_network_says_as_what_it_was_read(ours):
    arrays = {key: x for key, x in google(ours(*VIT)).items() if "encoderblock_2" not in key}
    error = refused(arrays)
    assert "12 missing, 0 unexpected" in error and "read as Google's vision transformers" in error


def test_unknown_names_point_to_the_list():
    message = "their names are of no form that is known (docs/models.md lists those that are)"
    assert message in refused({"a.b": np.zeros(3)})


def test_options_that_are_set_stay_in_what_would_fit(ours):
    arrays = ours("vit_mu8", {"init_values": 1e-5, "qk_norm": True})
    assert "they fit vit_mu8(qk_norm=True, init_values=1e-05)" in refused(arrays, qk_norm=True)


def test_folders_and_parts(ours, tmp_path):
    arrays = ours(*RESNET)
    write(tmp_path / "model.safetensors", arrays)
    (tmp_path / "training_args.bin").touch()
    same(models.load_weights(tmp_path), arrays)
    parts = tmp_path / "parts"
    parts.mkdir()
    names = sorted(arrays)
    where = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        write(parts / file, {name: arrays[name] for name in names if where[name] == file})
    index = parts / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    same(models.load_weights(parts), arrays)
    same(models.load_weights(index), arrays)
    (parts / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-1\.safetensors': no such file"):
        models.load_weights(index)
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(UserError, match="cannot be read: expected files beside it"):
        models.load_weights(index)
    index.write_text("[]")
    with pytest.raises(UserError, match="cannot be read: expected 'weight_map'"):
        models.load_weights(index)
    (parts / "other.npz").touch()
    index.unlink()
    with pytest.raises(UserError, match=r"one file of weights in it, found: model-0.*, other.npz"):
        models.load_weights(parts)


def test_narrow_numbers(ours, tmp_path):
    arrays = ours(*RESNET)
    for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.bfloat16, np.float16):
        low = {key: value.astype(kind) for key, value in arrays.items()}
        low["fc.bias"] = arrays["fc.bias"]
        write(tmp_path / "w.safetensors", low)
        same(models.load_weights(tmp_path / "w.safetensors"), low)
    low = {key: value.astype(ml_dtypes.bfloat16) for key, value in arrays.items()}
    write(tmp_path / "w.npz", low)  # as two bytes without a meaning
    found = models.load_weights(tmp_path / "w.npz")
    same(found, low)
    kernel = import_weights("resnet8", found)["params"]["head"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel.T, low["fc.weight"].astype(np.float32))


class Tensor:
    """As much of torch's as is asked for."""

    def __init__(self, array):
        self.array = array

    def is_floating_point(self):
        return self.array.dtype.kind == "f" or self.array.dtype == ml_dtypes.bfloat16

    def detach(self):
        return self

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def numpy(self):
        return self.array


@pytest.fixture
def torch_that(monkeypatch):
    """A torch whose `load` gives this, or raises it."""

    def make(found):
        def load(path, *, map_location, weights_only):
            assert map_location == "cpu" and weights_only is True and pathlib.Path(path).is_file()
            if isinstance(found, Exception):
                raise found
            return found

        safe = types.SimpleNamespace(safe_globals=lambda kinds: contextlib.nullcontext())
        is_tensor = lambda x: isinstance(x, Tensor)  # noqa: E731
        fake = types.SimpleNamespace(load=load, is_tensor=is_tensor, serialization=safe)
        monkeypatch.setitem(sys.modules, "torch", fake)

    return make


@pytest.mark.parametrize("file", ["w.pth", "w.pt", "pytorch_model.bin", "w.ckpt", "w.pth.tar"])
def test_files_of_pytorch_without_their_code(file, ours, torch_that, tmp_path):
    arrays = ours(*RESNET)
    tensors = {key: Tensor(value) for key, value in arrays.items()}
    tensors["fc.bias"] = Tensor(arrays["fc.bias"].astype(ml_dtypes.bfloat16))
    count = {"model.bn1.num_batches_tracked": Tensor(np.array(7))}
    torch_that(
        {
            "epoch": 3,
            "args": object(),
            "optimizer_states": {0: {"exp_avg": Tensor(np.zeros(3))}},
            "state_dict": {f"model.{key}": x for key, x in tensors.items()} | count,
        }
    )
    (tmp_path / file).touch()
    found = models.load_weights(tmp_path / file)
    assert found.keys() == {
        f"state_dict.{key}" for key in ({f"model.{k}" for k in arrays} | count.keys())
    }
    arrays["fc.bias"] = arrays["fc.bias"].astype(ml_dtypes.bfloat16)
    same(to_timm(found)[0], arrays)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("Cannot use weights_only with TorchScript archives\nmore"),
            "TorchScript arch",
        ),
        (
            pickle.UnpicklingError("Weights only load failed. WeightsUnpickler error"),
            "could run code",
        ),
        (EOFError("Ran out of input\nmore"), "cannot be read: Ran out of input"),
    ],
)
def test_files_of_pytorch_that_cannot_be_read(error, message, torch_that, tmp_path):
    torch_that(error)
    (tmp_path / "w.pt").touch()
    with pytest.raises(UserError, match=message) as found:
        models.load_weights(tmp_path / "w.pt")
    assert "\n" not in str(found.value)


def test_files_of_pytorch_need_torch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pt").touch()
    with pytest.raises(UserError, match=r"torch is not installed; pip install torch, or convert"):
        models.load_weights(tmp_path / "w.pt")


# TorchScript is deprecated, but its files will be around for long.
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_files_that_torch_itself_wrote(ours, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = ours(*VIT)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    options = argparse.Namespace(lr=0.1)
    torch.save({"model": tensors, "args": options, "epoch": 3}, tmp_path / "w.pth")
    same(to_timm(models.load_weights(tmp_path / "w.pth"))[0], arrays)
    torch.save({"model": tensors, "code": pathlib.Path}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="could run code"):
        models.load_weights(tmp_path / "w.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(UserError, match="TorchScript archive"):
        models.load_weights(tmp_path / "w.pt")
    (tmp_path / "w.pth").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        models.load_weights(tmp_path / "w.pth")
