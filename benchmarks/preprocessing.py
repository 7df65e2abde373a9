"""Compares how images are prepared with timm's own pipelines, name by name of the table.

    python benchmarks/preprocessing.py --photos=ILSVRC2012_img_val.tar --weights=FILE

Needs timm and torchvision. For every different preprocessing among the names that timm knows too:
grey levels of real photos by `timm.data.create_transform` and by ours, and whether a trained
network says the same of both. Writes `benchmarks/results/preprocessing.json`.
"""

import argparse
import io
import json
import pathlib
import tarfile

import numpy as np
import timm
import timm.data
from PIL import Image

import invariance_jax as ij
from invariance_jax.config import ExperimentConfig
from invariance_jax.models import preprocessing
from invariance_jax.report import examples

_CLOSE = 1.5
_OUTPUT = pathlib.Path(__file__).parent / "results" / "preprocessing.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True, help="a tar of photos")
    parser.add_argument("--model", default="resnet8(stem='imagenet')", help="for first guesses")
    parser.add_argument("--weights", required=True, help="its weights, as `export` writes them")
    parser.add_argument("--count", type=int, default=24, help="how many photos (24)")
    parser.add_argument("--canvas_size", type=int, default=512, help="of the config (512)")
    parser.add_argument("--output", type=pathlib.Path, default=_OUTPUT)
    return parser.parse_args()


def _photos(path: str, count: int) -> list[bytes]:
    with tarfile.open(path) as archive:
        members = [each for each in archive.getmembers() if each.isfile()][:count]
        return [archive.extractfile(each).read() for each in members]


def _by_timm(name: str) -> object:
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        return None
    options = timm.data.resolve_data_config({}, pretrained_cfg=cfg.to_dict())
    return timm.data.create_transform(**options, is_training=False)


def main() -> None:
    """Compares, prints a line for each preprocessing and writes the file."""
    arguments = _arguments()
    photos = _photos(arguments.photos, arguments.count)
    network = ij.load_model(arguments.model, arguments.weights)
    rows, seen, names = [], {}, 0
    for name, ours in preprocessing._table().items():
        theirs = _by_timm(name)
        if theirs is None:  # torchvision's
            continue
        names += 1
        key = repr(theirs)
        if key in seen:
            seen[key]["names"] += 1
            continue
        config = ExperimentConfig().with_values(
            data={
                "image_size": ours.image_size,
                "resize_size": ours.resize_size,
                "interpolation": ours.interpolation,
                "squash": ours.squash,
                "canvas_size": max(arguments.canvas_size, ours.resize_size),
            }
        )
        pairs, large = [], []
        for photo in photos:
            image = Image.open(io.BytesIO(photo)).convert("RGB")
            large.append(max(image.size) > config.data.canvas_size)
            there = theirs(image).numpy().transpose(1, 2, 0) * ours.std + np.array(ours.mean)
            example = {"image": photo, "label": 0, "name": ""}
            pairs.append((there.astype(np.float32), examples.prepared(example, config.data)))
        here, there = (np.stack([pair[i] for pair in pairs]) for i in (1, 0))
        apart = 255 * np.abs(here - there)
        guesses = [
            np.argmax(network.apply(network.variables, network.normalize(each))[0], axis=1)
            for each in (here, there)
        ]
        fits = ~np.array(large)
        seen[key] = {
            "name": name,
            "names": 1,
            "preprocessing": str(ours).partition(" (")[0],
            "photos": len(photos),
            "photos_larger_than_the_canvas": int(sum(large)),
            "share_within_1_5": float((apart <= _CLOSE).mean()),
            "share_within_1_5_of_photos_that_fit": float((apart[fits] <= _CLOSE).mean()),
            "median_grey_levels": float(np.median(apart)),
            "largest": float(apart.max()),
            "same_top1": float(np.mean(guesses[0] == guesses[1])),
            "same_top1_of_photos_that_fit": float(np.mean((guesses[0] == guesses[1])[fits])),
        }
        rows.append(seen[key])
        print(json.dumps(rows[-1]), flush=True)
    print(f"{names} names, {len(rows)} different preprocessings")
    result = {"names": names, "timm": timm.__version__, "rows": rows}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
