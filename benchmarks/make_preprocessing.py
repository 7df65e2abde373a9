"""Writes invariance_jax/models/data/preprocessing.csv: what published weights want of images.

    python benchmarks/make_preprocessing.py      # needs timm and torchvision

Facts alone: of each name with its tag (timm) or the name of its file (torchvision) the side that
the network sees, the shorter side before the centre crop, the filter, mean and standard deviation.
"""

import math
import pathlib
import re

import timm
import torchvision

_TABLE = pathlib.Path(__file__).parent.parent / "invariance_jax/models/data/preprocessing.csv"
_COLUMNS = "name,image_size,resize_size,interpolation,squash,mean,std"
# Of the two families that are read here; what is left out has parts of its own.
_FAMILIES = re.compile(r"(deit|resnet\d|resnetaa|resnetblur|resnext|wide_resnet|vit_\w+_patch)")
_OTHERS = re.compile(
    r"rope|radio|_pe_|sapiens|lingbot|intern|rpn|dinov3|siglip|tipsv2|sbb|miil|_r\d+_|resnet\w+_(clip|gn)"
    r"|resnet\d+[ctsq]"
)


def rows() -> list[str]:
    """The table's rows, sorted."""
    found = {}
    for name in timm.list_pretrained():
        if _FAMILIES.match(name) and not _OTHERS.search(name):
            cfg = timm.get_pretrained_cfg(name)
            size = cfg.input_size[-1]
            # As timm's own evaluation computes it.
            sizes = size, math.floor(size / cfg.crop_pct)
            squash = int(cfg.crop_mode == "squash")
            found[name] = (*sizes, cfg.interpolation, squash, cfg.mean, cfg.std)
    for name in torchvision.models.list_models(torchvision.models):
        if not _FAMILIES.match(name) and not name.startswith("vit_"):
            continue
        for each in torchvision.models.get_model_weights(name):
            (filter_,) = {each.transforms().interpolation.value}
            of = each.transforms()
            stem = each.url.rpartition("/")[2].removesuffix(".pth")
            found[stem] = (*of.crop_size, *of.resize_size, filter_, 0, of.mean, of.std)
    return [
        ",".join((name, *map(str, values[:4]), *(" ".join(map(str, each)) for each in values[4:])))
        for name, values in sorted(found.items())
    ]


if __name__ == "__main__":
    _TABLE.parent.mkdir(exist_ok=True)
    _TABLE.write_text("\n".join((_COLUMNS, *rows(), "")), encoding="utf-8")
