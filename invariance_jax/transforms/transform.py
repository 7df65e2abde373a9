"""What a transform is: a pure function of an image and a magnitude, with its ten magnitudes."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from jaxtyping import Array, Float

Apply = Callable[[Float[Array, "height width 3"], Float[Array, ""]], Float[Array, "height width 3"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transform:
    """One row of the table of transforms.

    Attributes:
        name: Its key in the table.
        apply: `apply(image, magnitude) -> image`, both images float32 [height, width, 3] in
            [0, 1] and of the same shape, the magnitude a scalar (it may be traced).
        magnitudes: The ten magnitudes of the grid, the weakest first.
        identity: A magnitude at which `apply` returns every image exactly as it is; None where
            there is none, as for `invert`. The grid need not contain it: `solarize` at its
            weakest magnitude still inverts saturated pixels, so its identity is infinity.
        unit: What a magnitude counts, for axes and tables.
        family: Does it move things, or change how they look?
        signed: Whether -magnitude is as good as magnitude, the other way: `magnitudes` holds
            sizes, and a random twin draws the sign.
        apply_normalized: The original's rule on normalised values, where it is another than
            `apply`; None where `apply` serves.
    """

    name: str
    apply: Apply
    magnitudes: tuple[float, ...]
    identity: float | None
    unit: str
    family: Literal["geometric", "appearance"]
    signed: bool = False
    apply_normalized: Apply | None = None
