"""Trims the shared golden arrays to what the tests need.

    python tests/golden/make_trimmed.py ../shared/data/golden

The full arrays were made with torchvision 0.28 and Pillow 13.0 on one photo; see README.md here.
"""

import pathlib
import sys

import numpy as np

POINTS = 120  # of 1,500 sampled pixels
BOXES = 2000  # of 6,000 for each sampler and image size


def main(source: pathlib.Path) -> None:
    here = pathlib.Path(__file__).parent
    full = np.load(source / "transforms.npz")
    np.savez_compressed(
        here / "transforms.npz",
        image_u8=full["image_u8"],
        points_yx=full["points_yx"][:POINTS],
        magnitudes=full["magnitudes"],
        grid_pixel=full["grid_pixel"][:, :, :POINTS],
    )
    # The same image and points.
    np.savez_compressed(
        here / "transforms_normalized.npz", grid_normalized=full["grid_normalized"][:, :, :POINTS]
    )
    np.savez_compressed(
        here / "autoaugment.npz",
        names=full["autoaugment_names"],
        magnitudes=full["autoaugment_magnitudes"],
        levels=full["autoaugment"][:, :, :, :POINTS],
    )
    np.savez_compressed(
        here / "crops.npz",
        full_u8=full["full_u8"],
        points_yx=full["points_yx"],
        crop_boxes_tlhw=full["crop_boxes_tlhw"],
        crops=full["crops"],
    )
    boxes = np.load(source / "crop_boxes.npz")
    np.savez_compressed(
        here / "crop_boxes.npz",
        **{
            name: values if name == "image_sizes_hw" else values[:, :BOXES].astype(np.int16)
            for name, values in boxes.items()
        },
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
