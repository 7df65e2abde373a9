"""What every box sampler speaks of: rectangles, and the windows that one image passes through.

Each sampler is a pytree: its numbers are leaves, so samplers of one structure can be stacked and
mapped over, and its sizes are static. It is called as `sampler(key, height, width)` and returns one
window for each resampling of the paper's pipeline; `sampler.frames` are the sides of the square
images between them, in pixels.
"""

from typing import NamedTuple

from jaxtyping import Array, Float, Int

Scalar = Float[Array, ""]
Size = Int[Array, ""]


class Box(NamedTuple):
    """A rectangle in pixels, float32; pixel i spans [i, i + 1]. It may leave the image.

    Attributes:
        top: Upper edge.
        left: Left edge.
        height: Extent downwards, positive.
        width: Extent to the right, positive.
    """

    top: Scalar
    left: Scalar
    height: Scalar
    width: Scalar


class Window(NamedTuple):
    """One resampling: which part is shown, and what its filter sees. All in pixels of its input.

    Attributes:
        box: The part that is stretched to the output.
        cut: The filter sees pixels in here only: the box where the paper crops and then resizes,
            the image where it resizes and then crops. Pixels in here but off the image are black.
        visible: Output pixels whose centre lies outside are black.
    """

    box: Box
    cut: Box
    visible: Box


def crop_then_resize(box: Box) -> Window:
    """The window of a crop that is made before it is resized.

    Args:
        box: The crop, whole pixels; what of it leaves the image is black.

    Returns:
        The window.
    """
    return Window(box=box, cut=box, visible=box)


def source_box(windows: tuple[Window, ...], frames: tuple[int, ...]) -> Box:
    """Follows the last window back to the source.

    Args:
        windows: In the order in which an image passes through them.
        frames: Sides of the square images between them, pixels; one fewer than windows.

    Returns:
        The part of the source that the output shows.
    """
    box = windows[-1].box
    for window, frame in zip(reversed(windows[:-1]), reversed(frames), strict=True):
        outer = window.box
        rows, columns = outer.height / frame, outer.width / frame
        box = Box(
            outer.top + box.top * rows,
            outer.left + box.left * columns,
            box.height * rows,
            box.width * columns,
        )
    return box
