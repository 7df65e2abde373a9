"""AutoAugment's published policies: 25 sub-policies each, found by its search on three datasets.

Source: Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, CVPR 2019
(https://arxiv.org/abs/1805.09501), appendix; indices of operations
without magnitude included, though they change nothing.
"""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

# An operation of `transforms.AUTOAUGMENT`, its probability and the index of its magnitude, 0 to 9.
Step = tuple[str, float, int]
SubPolicy = tuple[Step, Step]

# One sub-policy: two steps in sequence, "+" between them. "|" and line breaks stand between two.
_PUBLISHED = {
    "imagenet": """
        posterize 0.4 8 + rotate 0.6 9         | solarize 0.6 5 + autocontrast 0.6 5
        equalize 0.8 8 + equalize 0.6 3        | posterize 0.6 7 + posterize 0.6 6
        equalize 0.4 7 + solarize 0.2 4        | equalize 0.4 4 + rotate 0.8 8
        solarize 0.6 3 + equalize 0.6 7        | posterize 0.8 5 + equalize 1.0 2
        rotate 0.2 3 + solarize 0.6 8          | equalize 0.6 8 + posterize 0.4 6
        rotate 0.8 8 + color 0.4 0             | rotate 0.4 9 + equalize 0.6 2
        equalize 0.0 7 + equalize 0.8 8        | invert 0.6 4 + equalize 1.0 8
        color 0.6 4 + contrast 1.0 8           | rotate 0.8 8 + color 1.0 2
        color 0.8 8 + solarize 0.8 7           | sharpness 0.4 7 + invert 0.6 8
        shear_x 0.6 5 + equalize 1.0 9         | color 0.4 0 + equalize 0.6 3
        equalize 0.4 7 + solarize 0.2 4        | solarize 0.6 5 + autocontrast 0.6 5
        invert 0.6 4 + equalize 1.0 8          | color 0.6 4 + contrast 1.0 8
        equalize 0.8 8 + equalize 0.6 3
    """,
    "cifar10": """
        invert 0.1 7 + contrast 0.2 6          | rotate 0.7 2 + translate_x 0.3 9
        sharpness 0.8 1 + sharpness 0.9 3      | shear_y 0.5 8 + translate_y 0.7 9
        autocontrast 0.5 8 + equalize 0.9 2    | shear_y 0.2 7 + posterize 0.3 7
        color 0.4 3 + brightness 0.6 7         | sharpness 0.3 9 + brightness 0.7 9
        equalize 0.6 5 + equalize 0.5 1        | contrast 0.6 7 + sharpness 0.6 5
        color 0.7 7 + translate_x 0.5 8        | equalize 0.3 7 + autocontrast 0.4 8
        translate_y 0.4 3 + sharpness 0.2 6    | brightness 0.9 6 + color 0.2 8
        solarize 0.5 2 + invert 0.0 3          | equalize 0.2 0 + autocontrast 0.6 0
        equalize 0.2 8 + equalize 0.6 4        | color 0.9 9 + equalize 0.6 6
        autocontrast 0.8 4 + solarize 0.2 8    | brightness 0.1 3 + color 0.7 0
        solarize 0.4 5 + autocontrast 0.9 3    | translate_y 0.9 9 + translate_y 0.7 9
        autocontrast 0.9 2 + solarize 0.8 3    | equalize 0.8 8 + invert 0.1 3
        translate_y 0.7 9 + autocontrast 0.9 1
    """,
    "svhn": """
        shear_x 0.9 4 + invert 0.2 3           | shear_y 0.9 8 + invert 0.7 5
        equalize 0.6 5 + solarize 0.6 6        | invert 0.9 3 + equalize 0.6 3
        equalize 0.6 1 + rotate 0.9 3          | shear_x 0.9 4 + autocontrast 0.8 3
        shear_y 0.9 8 + invert 0.4 5           | shear_y 0.9 5 + solarize 0.2 6
        invert 0.9 6 + autocontrast 0.8 1      | equalize 0.6 3 + rotate 0.9 3
        shear_x 0.9 4 + solarize 0.3 3         | shear_y 0.8 8 + invert 0.7 4
        equalize 0.9 5 + translate_y 0.6 6     | invert 0.9 4 + equalize 0.6 7
        contrast 0.3 3 + rotate 0.8 4          | invert 0.8 5 + translate_y 0.0 2
        shear_y 0.7 6 + solarize 0.4 8         | invert 0.6 4 + rotate 0.8 4
        shear_y 0.3 7 + translate_x 0.9 3      | shear_x 0.1 6 + invert 0.6 5
        solarize 0.7 2 + translate_y 0.6 7     | shear_y 0.8 4 + invert 0.8 8
        shear_x 0.7 9 + translate_y 0.8 3      | shear_y 0.8 5 + autocontrast 0.7 3
        shear_x 0.7 2 + invert 0.1 5
    """,
}


def _tables(without_index: Collection[str] = ()) -> Mapping[str, tuple[SubPolicy, ...]]:
    def step(text: str) -> Step:
        name, probability, index = text.split()
        return name, float(probability), 0 if name in without_index else int(index)

    return MappingProxyType(
        {
            name: tuple(
                tuple(map(step, pair.split("+"))) for pair in re.split(r"\||\n", text.strip())
            )
            for name, text in _PUBLISHED.items()
        }
    )


PUBLISHED_POLICIES = _tables()

# With index 0 where the operation has no magnitude.
AUTOAUGMENT_POLICIES = _tables(without_index=("autocontrast", "equalize", "invert"))
