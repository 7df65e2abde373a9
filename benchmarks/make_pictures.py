"""Makes the README's picture from the committed study: one photo under some transforms.

python benchmarks/make_pictures.py
"""

import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from invariance_jax.files import atomic_path
from invariance_jax.report import examples, load
from invariance_jax.transforms import TRANSFORMS

DOCS = pathlib.Path(__file__).parents[1] / "docs"
SHOWN = (
    *(
        ("rotate", 0),
        ("translate_x", 3),
        ("rotate", 4),
        ("scale_zoom_out", 6),
        ("scale_zoom_in", 7),
    ),
    *(("shear_x", 5), ("solarize", 6), ("increase_contrast", 7)),
)
SIDE, GAP, BELOW = 150, 8, 22


def main() -> None:
    """Draws and writes it."""
    image = load.read([DOCS / "study" / "results"]).example
    grid = examples.transformed(image)
    width = len(SHOWN) * (SIDE + GAP) - GAP
    picture = Image.new("RGB", (width, SIDE + BELOW), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for place, (name, magnitude) in enumerate(SHOWN):
        pixels = np.round(255 * grid[list(TRANSFORMS).index(name), magnitude]).astype(np.uint8)
        left = place * (SIDE + GAP)
        large = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.paste(large, (left, 0))
        text = name.replace("_", " ") if magnitude else "an image"
        draw.text((left + SIDE // 2, SIDE + 3), text, fill="black", font=font, anchor="ma")
    with atomic_path(DOCS / "images" / "transforms.png") as temporary:
        picture.save(temporary, "png", optimize=True)


if __name__ == "__main__":
    main()
