"""Forms that weights come in: one table of what tells each, and of how its names become timm's.

A form is told by one key, the sign, wherever it stands: what is before it is before every key of
that network, be it a wrapper's (`module.`), a checkpoint's (`state_dict.`) or a larger model's
(`visual.`).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from invariance_jax.errors import UserError, unknown_name

Arrays = dict[str, np.ndarray]
# A pattern and what takes its place, as `re.sub` takes them.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_BEFORE = r"((?:[^.]+\.)*?)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """One row of the table.

    Attributes:
        sign: The end of a key that each network of this form has once, and no other form.
        rules: Tried one after the other on every key, without what stands before the sign.
        left_out: Keys that are no part of the network, as timm would name them, and what they are.
        arrange: What is done to names and axes first, where rules do not suffice.
    """

    sign: str
    rules: tuple[Rule, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arrange: Callable[[Arrays], Arrays] = dict


def _one_more(before: str) -> Callable[[re.Match[str]], str]:
    """Counts from one instead of from zero."""
    return lambda found: before + str(int(found[1]) + 1)


_DECODER = {r"decoder\b.*|decoder_.*": "the decoder", r"mask_token": "the mask token"}
_PROJECTION = {
    r"(head|fc)\.(\d+|mlp|last_layer)\b.*|(projection_head|prototypes)\..*": "the projection head"
}


def _from_google(arrays: Arrays) -> Arrays:
    """Axes of Flax's layers become torch's; blocks that are stacked become one array each."""
    stacked, found = "Transformer.encoderblock.", {}
    for key, value in arrays.items():
        if key.startswith(stacked):
            inner = key.removeprefix(stacked)
            found |= {f"Transformer.encoderblock_{n}.{inner}": x for n, x in enumerate(value)}
        else:
            found[key] = value
    for key, value in found.items():
        if re.search(r"(query|key|value)\.bias$", key):
            found[key] = value.reshape(-1)
        elif key.endswith("kernel"):
            if key.endswith("embedding.kernel"):
                found[key] = value.transpose(3, 2, 0, 1)
            else:
                # [width, heads, depth], [heads, depth, width] or [inputs, outputs]
                first = -1 if key.endswith("out.kernel") else value.shape[0]
                last = value.shape[-1] if first == -1 else -1
                found[key] = value.reshape(first, last).T
    return found


FORMS: Mapping[str, Form] = {
    "timm's vision transformers, DINO's, MAE's, DeiT's, DINOv2's": Form(
        sign=r"patch_embed\.proj\.weight",
        rules=(
            (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # divided among devices
            (r"\.gamma_([12])$", r".ls\1.gamma"),
            (r"\.mlp\.w12\.", ".mlp.fc1."),
            (r"\.mlp\.w3\.", ".mlp.fc2."),
        ),
        left_out=_DECODER | _PROJECTION,
    ),
    "timm's and torchvision's ResNets": Form(
        sign=r"layer1\.0\.conv1\.weight", left_out=_PROJECTION
    ),
    "torchvision's vision transformers": Form(
        sign=r"conv_proj\.weight",
        rules=(
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
            (r"^encoder\.ln\.", "norm."),
            (r"^heads\.head\.", "head."),
        ),
    ),
    "Google's vision transformers (.npz)": Form(
        sign=r"embedding\.kernel",
        arrange=_from_google,
        rules=(
            (r"^Transformer\.encoderblock_(\d+)\.", r"blocks.\1."),
            (r"\.LayerNorm_0\.", ".norm1."),
            (r"\.LayerNorm_[12]\.", ".norm2."),
            (r"\.MultiHeadDotProductAttention_\d\.(query|key|value)\.", r".attn.\1."),
            (r"\.MultiHeadDotProductAttention_\d\.out\.", ".attn.proj."),
            (r"\.MlpBlock_\d\.Dense_", ".mlp.Dense_"),
            (r"\.Dense_(\d)", _one_more(".fc")),
            (r"^Transformer\.encoder_norm\.", "norm."),
            (r"^(Transformer\.posembed_input\.)?pos_embedding$", "pos_embed"),
            (r"^cls$", "cls_token"),
            (r"^embedding\.", "patch_embed.proj."),
            (r"\.(kernel|scale)$", ".weight"),
        ),
    ),
    "Hugging Face's ViT, DeiT, DINOv2, MAE": Form(
        sign=r"(?:(?:vit|deit|dinov2\w*)\.)?embeddings\.patch_embeddings\.projection\.weight",
        rules=(
            (r"^(vit|deit|dinov2\w*)\.", ""),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.distillation_token$", "dist_token"),
            (r"^embeddings\.", ""),
            (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
            (r"\.attention\.attention\.", ".attn."),
            (r"\.attention\.output\.dense\.", ".attn.proj."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
            (r"\.(output\.dense|mlp\.weights_out)\.", ".mlp.fc2."),
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"^layernorm\.", "norm."),
            (r"^(cls_)?classifier\.", "head."),
            (r"^distillation_classifier\.", "head_dist."),
        ),
        left_out=_DECODER | {r"pooler\..*": "the pooler"},
    ),
    "Hugging Face's ResNets": Form(
        sign=r"(?:resnet\.)?embedder\.embedder\.convolution\.weight",
        rules=(
            (r"^resnet\.", ""),
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^encoder\.stages\.(\d+)\.layers", _one_more("layer")),
            (r"\.shortcut\.convolution\.", ".downsample.0."),
            (r"\.shortcut\.normalization\.", ".downsample.1."),
            (r"\.layer\.(\d)(?=\.convolution)", _one_more(".conv")),
            (r"\.layer\.(\d)(?=\.normalization)", _one_more(".bn")),
            (r"\.(convolution|normalization)\.", "."),
            (r"^classifier\.1\.", "fc."),
        ),
    ),
    "CLIP's visual tower, OpenAI's and open_clip's": Form(
        sign=r"ln_pre\.weight",
        rules=(
            (r"^class_embedding$", "cls_token"),
            (r"^positional_embedding$", "pos_embed"),
            (r"^conv1\.", "patch_embed.proj."),
            (r"^ln_pre\.", "norm_pre."),
            (r"^ln_post\.", "norm."),
            (r"^transformer\.resblocks\.", "blocks."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.ls_([12])\.", r".ls\1."),
            (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
            (r"\.attn\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.c_fc\.", ".mlp.fc1."),
            (r"\.mlp\.c_proj\.", ".mlp.fc2."),
        ),
        left_out={r"proj": "the projection into the space of texts"},
    ),
    "CLIP's visual tower, Hugging Face's": Form(
        sign=r"embeddings\.patch_embedding\.weight",
        rules=(
            (r"^embeddings\.class_embedding$", "cls_token"),
            (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
            (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
            (r"^pre_layrnorm\.", "norm_pre."),
            (r"^post_layernorm\.", "norm."),
            (r"^encoder\.layers\.", "blocks."),
            (r"\.layer_norm([12])\.", r".norm\1."),
            (r"\.self_attn\.out_proj\.", ".attn.proj."),
            (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
        ),
        left_out={r"embeddings\.position_ids": "numbers of the positions"},
    ),
}

_ROTARY = (
    "this vision transformer has no position embeddings (DINOv3 and EVA-02 turn queries and keys "
    "instead), which every network here has"
)
# What no network here is, by one of its keys.
OTHERS: Mapping[str, str] = {
    r".*(lora_[AB]|lora_(up|down))\b.*": (
        "this is an adapter (LoRA) without the weights that it adapts; merge the two where they "
        "were made"
    ),
    r".*(weight_scale|scale_inv|absmax|quant_state|qweight)\b.*": (
        "these weights are quantised, with scales beside them; multiply the two and save float32"
    ),
    r".*\.filt": (
        "this ResNet is of the package antialiased-cnns, which blurs with other filters than "
        "timm's resnetblur50"
    ),
    r".*attnpool\..*": "CLIP's ResNets pool by attention, which no network here does",
    r".*(attn_pool|MAPHead_0|\bhead\.(attention|probe))\b.*": (
        "SigLIP pools by attention, which no network here does"
    ),
    r".*(relative_position_bias_table|relative_position_index|\.[qv]_bias)": (
        "this is a Swin transformer or BEiT, with relative positions that no network here has"
    ),
    r".*(rope_embed|storage_tokens|\brope\b|fc1_g).*|layer\.\d+\.attention\.k_proj\..*": _ROTARY,
    r".*(conv_dw|dwconv)\..*": "this is a ConvNeXt, which is not among the networks here",
    r".*\.se\.(fc1|conv_reduce)\..*": (
        "this ResNet has squeeze-and-excitation, which no network here has"
    ),
}
_A_FUNCTION = "; timm:NAME for the model's name, or ij.measure, takes any network of PyTorch"

# Parts of keys that say which of two networks is the moving average of the other.
_AVERAGES = re.compile(
    r"(^|\.)((\w+_)?ema(_\w+)?|teacher|momentum_\w+|encoder_k|target_(encoder|network)|averaged_model)\."
)
_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COUNTERS = ("num_batches_tracked", "n_averaged")
CHOICES = ("auto", "plain", "ema")


def to_timm(
    state_dict: Mapping[str, ArrayLike], which_weights: str = "auto"
) -> tuple[Arrays, tuple[str, ...]]:
    """Finds the network in what a file holds, and gives its arrays timm's or torchvision's names.

    What has these names already stays as it is; so does what is of no known form.

    Args:
        state_dict: Name to array, dots or slashes between the parts of a name.
        which_weights: Of weights and their moving average: "plain", "ema", or "auto" for the plain
            ones, or for the only ones.

    Returns:
        Name to array in torch's axes, and sentences about what was chosen and left out.

    Raises:
        UserError: There is no such network, or more than one.
    """
    if which_weights not in CHOICES:
        raise unknown_name("choice of which_weights", which_weights, CHOICES)
    arrays = {
        _WRAPPERS.sub("", key.replace("/", ".")): np.asarray(value)
        for key, value in state_dict.items()
        if not key.endswith(_COUNTERS)
    }
    networks = {
        found[1]: name
        for key in arrays
        for name, form in FORMS.items()
        if (found := re.fullmatch(_BEFORE + form.sign, key))
    }
    if not networks:
        return arrays, ()
    before, said = _choose(arrays, list(networks), which_weights)
    form = FORMS[networks[before]]
    others = {_beside(key, before) for key in arrays if not key.startswith(before)}
    if others:
        said.append(f"left out: what stands beside {before!r} ({_listed(others)})")
    arrays = {
        key.removeprefix(before): value for key, value in arrays.items() if key.startswith(before)
    }
    named = {_renamed(key, form.rules): value for key, value in form.arrange(arrays).items()}
    if named.keys() != arrays.keys():
        said.insert(0, f"read as {networks[before]}")
    for pattern, what in form.left_out.items():
        keys = [key for key in named if re.fullmatch(pattern, key)]
        if keys:
            said.append(f"left out: {what} ({_listed(keys)})")
        for key in keys:
            del named[key]
    return _without_foreign_head(_tokens(_joined(named)), said), tuple(said)


def other_form(keys: Mapping[str, Any]) -> str:
    """Says what weights are that are of no known form.

    Args:
        keys: Their names.

    Returns:
        What they are and what to do, or nothing if that is not known either.
    """
    if "blocks.0.attn.qkv.weight" in keys and "pos_embed" not in keys:
        return _ROTARY + _A_FUNCTION
    found = (text for sign, text in OTHERS.items() if any(re.fullmatch(sign, key) for key in keys))
    return next((text + _A_FUNCTION for text in found), "")


def _choose(arrays: Arrays, networks: list[str], which: str) -> tuple[str, list[str]]:
    """What stands before the keys of the one that is meant, and what is to be said of it."""
    averages = [each for each in networks if _AVERAGES.search(each)]
    plain = [each for each in networks if each not in averages]
    if which == "auto" and averages and any("student." in each for each in plain):
        raise UserError(
            f"weights hold a student and its moving average, the teacher ({_listed(networks)}); "
            "say which is meant: which_weights='plain' or 'ema'"
        )
    chosen = averages if which == "ema" else plain if which == "plain" else plain or averages
    if not chosen:
        raise UserError(
            f"which_weights is {which!r}, but the weights hold {_listed(networks)} alone; expected "
            "'auto'"
        )
    first = min(chosen, key=len)
    if not all(_same(arrays, first, other) for other in chosen):
        raise UserError(
            f"weights hold {len(chosen)} networks ({_listed(chosen)}); save alone the one that is "
            "meant"
        )
    said = []
    if which == "auto" and averages and plain:
        said.append(
            f"{first!r} is read; which_weights='ema' reads the moving average {averages[0]!r}"
        )
    return first, said


def _same(arrays: Arrays, first: str, second: str) -> bool:
    """Whether two networks in one file are one, as where an attack refers to what it attacks."""
    ours = {key.removeprefix(first): x for key, x in arrays.items() if key.startswith(first)}
    theirs = {key.removeprefix(second): x for key, x in arrays.items() if key.startswith(second)}
    return all(key in ours and np.array_equal(ours[key], x) for key, x in theirs.items())


def _beside(key: str, before: str) -> str:
    """The names on the way to a key up to the first that is not on the way to the network."""
    parts, ours = key.split("."), before.split(".")
    equal = next(n for n, part in enumerate(parts) if n >= len(ours) or part != ours[n])
    return ".".join(parts[: equal + 1])


def _renamed(key: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _joined(arrays: Arrays) -> Arrays:
    """Queries, keys and values that stand alone become the rows of one array."""
    found = {}
    for key, value in arrays.items():
        part = re.fullmatch(r"(.*\.attn\.)(query|key|value|q|k|v)(\.weight|\.bias)", key)
        if part is None:
            found[key] = value
            continue
        names = ("q", "k", "v") if len(part[2]) == 1 else ("query", "key", "value")
        parts = [arrays.get(f"{part[1]}{name}{part[3]}") for name in names]
        if any(each is None for each in parts):
            found[key] = value
        else:
            found[f"{part[1]}qkv{part[3]}"] = np.concatenate(parts)
    return found


def _tokens(arrays: Arrays) -> Arrays:
    """Tokens and positions get timm's three axes, DINOv2's class token its position."""
    if "register_tokens" in arrays:
        # timm's networks with registers have no position but for patches.
        arrays["reg_token"] = arrays.pop("register_tokens")
        positions = arrays["pos_embed"].astype(np.float32)
        arrays["cls_token"] = arrays["cls_token"].astype(np.float32) + positions[:, :1]
        arrays["pos_embed"] = positions[:, 1:]
    for name, axes in (("cls_token", 1), ("pos_embed", 2)):
        if name in arrays and arrays[name].ndim == axes:
            arrays[name] = arrays[name].reshape(1, -1, arrays[name].shape[-1])
    return arrays


def _without_foreign_head(arrays: Arrays, said: list[str]) -> Arrays:
    """Leaves out a head that sees something else than the network's embedding."""
    head, width = arrays.get("head.weight"), arrays.get("patch_embed.proj.weight")
    if head is None or width is None or head.ndim != 2 or head.shape[1] == width.shape[0]:
        return arrays
    said.append(f"left out: a head that sees {head.shape[1]} numbers, not {width.shape[0]}")
    return {key: x for key, x in arrays.items() if key not in ("head.weight", "head.bias")}


def _listed(names: Any) -> str:
    names = sorted(name.rstrip(".") for name in names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
