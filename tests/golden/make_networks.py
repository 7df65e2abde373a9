"""Asks timm what its networks give: networks.npz and networks.json. Needs torch and timm.

    python tests/golden/make_networks.py NAME ...    # of `invariance_jax.models.names()`

Weights are those of tests/prescribed.py. networks.npz holds logits and embeddings of small networks
with one option each, on a crop of the photo of transforms.npz and its mirror image, and resampled
position embeddings; networks.json what timm's network of each name is made of.
"""

import functools
import json
import pathlib
import sys

import numpy as np
import timm
import torch
from timm.layers import BlurPool2d, LayerNorm, SwiGLUPacked, resample_abs_pos_embed
from timm.models.deit import VisionTransformerDistilled
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import prescribed  # noqa: E402

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = {"pre_norm": True, "norm_layer": functools.partial(LayerNorm, eps=1e-5)}
GAP = {"class_token": False, "global_pool": "avg"}
SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 2.66667 * 2}
# What differs from a network of patches of 8 pixels on 32 pixels, width 32, one block, 2 heads.
VITS = {
    "plain": {},
    "patch14": {"patch_size": 14, "img_size": 28},
    "layer_scale": {"init_values": 1e-5},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "registers_with_positions": {"reg_tokens": 2},
    "no_embed_class": {"no_embed_class": True},
    "distilled": {},
    "average": {"global_pool": "avg"},
    "average_without_class_token": GAP,
    "average_of_normalised": {**GAP, "fc_norm": False},
    "pre_norm": CLIP,
    "quick_gelu": {**CLIP, "act_layer": "quick_gelu"},
    "qk_norm": {"qk_norm": True},
    "without_qkv_bias": {"qkv_bias": False},
    "swiglu": SWIGLU,
    "dinov2_giant": {
        **SWIGLU, "init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True, "patch_size": 14,
        "img_size": 28,
    },
}  # fmt: skip
# Of 33 pixels, so that odd maps are halved; one block in each of two stages.
SIDE = 33
RESNETS = {
    "basic_deep": (BasicBlock, {"stem_width": 8, "stem_type": "deep", "channels": (16, 32)}),
    "basic_avg_down": (BasicBlock, {"avg_down": True}),
    "basic_blur": (BasicBlock, {"aa_layer": BlurPool2d}),
    "wide": (Bottleneck, {"base_width": 128}),
    "groups": (Bottleneck, {"cardinality": 8, "base_width": 4}),
    "d": (
        Bottleneck,
        {"stem_width": 8, "stem_type": "deep", "channels": (16, 32), "avg_down": True},
    ),
    "blur": (Bottleneck, {"aa_layer": BlurPool2d}),
}


def draw(model: torch.nn.Module) -> None:
    model.load_state_dict(
        {
            key: value if key.endswith("num_batches_tracked")
            else torch.from_numpy(prescribed.draw(key, tuple(value.shape)))
            for key, value in model.state_dict().items()
        }
    )  # fmt: skip
    model.eval()


def outputs() -> dict[str, np.ndarray]:
    photo = np.load(HERE / "transforms.npz")["image_u8"]
    found = {}
    models = {}
    for name, options in VITS.items():
        kind = VisionTransformerDistilled if name == "distilled" else VisionTransformer
        size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
        models[f"vit/{name}"] = kind(**{**size, "num_classes": 10, **options})
    for name, (block, options) in RESNETS.items():
        size = {"layers": (1, 1), "channels": (64, 32), "num_classes": 10}
        models[f"resnet/{name}"] = ResNet(block, **{**size, **options})
        # timm calls four stages by their names.
        models[f"resnet/{name}"].layer3 = models[f"resnet/{name}"].layer4 = torch.nn.Identity()
    for name, model in models.items():
        draw(model)
        side = model.patch_embed.img_size[0] if name.startswith("vit") else SIDE
        crop = photo[100 : 100 + side, 60 : 60 + side]
        images = np.stack([crop, crop[:, ::-1]]).astype(np.float32) / 255
        images = (images - np.float32(MEAN)) / np.float32(DEVIATION)
        with torch.no_grad():
            features = model.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
            found[f"{name}/embedding"] = model.forward_head(features, pre_logits=True).numpy()
            found[f"{name}/logits"] = model.forward_head(features).numpy()
    for name, old, new in (("smaller", 7, 4), ("larger", 4, 7)):
        positions = prescribed.draw("pos_embed", (1, 1 + old**2, 8))
        resampled = resample_abs_pos_embed(torch.from_numpy(positions), [new, new], [old, old])
        found[f"pos_embed/{name}"] = resampled.numpy()
    return found


def described(name: str) -> dict[str, object] | None:
    """What timm's network of this name is made of."""
    with torch.device("meta"):
        try:
            model = timm.create_model(name)
        except RuntimeError:  # no network of timm's
            return None
    if isinstance(model, VisionTransformer):
        block, patches = model.blocks[0], model.patch_embed.num_patches
        norm = model.norm if isinstance(model.norm, LayerNorm) else model.fc_norm
        return {
            "patch": model.patch_embed.patch_size[0],
            "width": model.embed_dim,
            "depth": len(model.blocks),
            "heads": block.attn.num_heads,
            "hidden": block.mlp.fc1.out_features,
            "activation": type(block.mlp.act).__name__,
            "qkv_bias": block.attn.qkv.bias is not None,
            "qk_norm": isinstance(block.attn.q_norm, LayerNorm),
            "init_values": getattr(block.ls1, "init_values", None),
            "epsilon": norm.eps,
            "class_token": model.cls_token is not None,
            "reg_tokens": model.num_reg_tokens,
            "distilled": hasattr(model, "dist_token"),
            "embedded_prefix": model.pos_embed.shape[1] - patches,
            "pre_norm": isinstance(model.norm_pre, LayerNorm),
            "global_pool": model.global_pool,
            "norm_after_pool": isinstance(model.fc_norm, LayerNorm),
        }
    stages = [getattr(model, f"layer{stage}") for stage in (1, 2, 3, 4)]
    first, second = stages[0][0], stages[1][0]
    deep = isinstance(model.conv1, torch.nn.Sequential)
    return {
        "stage_sizes": [len(stage) for stage in stages],
        "stage_widths": [stage[0].conv1.in_channels for stage in stages[1:]],
        "bottleneck": isinstance(first, Bottleneck),
        "inner": first.conv2.out_channels,
        "groups": first.conv2.groups,
        "stem": [each.out_channels for each in model.conv1 if hasattr(each, "kernel_size")]
        if deep
        else [model.conv1.out_channels],
        "avg_down": isinstance(second.downsample[0], torch.nn.AvgPool2d),
        "blur_pool": isinstance(second.aa, BlurPool2d),
    }


def main() -> None:
    np.savez_compressed(HERE / "networks.npz", **outputs())
    names = sys.argv[1:]
    found = {name: described(name) for name in names}
    known = {name: what for name, what in found.items() if what}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(what)}" for name, what in known.items())
    (HERE / "networks.json").write_text(f"{{\n{lines}\n}}\n")
    print("not timm's:", [name for name in names if name not in known])


if __name__ == "__main__":
    main()
