"""Split notation of TensorFlow Datasets: `train`, `train[:10%]`, `validation[:64]`, `a+b`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow_datasets as tfds

from invariance_jax.errors import UserError, unknown_name


class SplitError(UserError):
    """A split that cannot be read or is not there."""


class Span(NamedTuple):
    """Consecutive images of one whole split.

    Attributes:
        split: The whole split's name.
        start: First image.
        stop: One after the last image.
    """

    split: str
    start: int
    stop: int


def resolve(split: str, files: Mapping[str, Sequence[int]]) -> tuple[Span, ...]:
    """Says which images a split stands for.

    Args:
        split: In TFDS notation; percentages are rounded as TFDS does.
        files: Number of images in each file of every whole split (`train[:2shard]` counts them).

    Returns:
        The spans, in order; together they hold at least one image.

    Raises:
        SplitError: The notation cannot be read, no such split, out of range, or empty.
    """
    infos = {
        name: tfds.core.SplitInfo(
            name=name, shard_lengths=list(lengths), num_bytes=0, filename_template=None
        )
        for name, lengths in files.items()
    }
    sizes = {name: sum(lengths) for name, lengths in files.items()}
    try:
        instructions = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    # TFDS raises NotImplementedError for a part of all splits, `all[:10%]`.
    except (ValueError, NotImplementedError) as error:
        base = split.partition("[")[0]
        if base.isidentifier() and base not in sizes and base != "all":
            raise SplitError(f"split {split!r}: {unknown_name('split', base, sizes)}") from None
        reason = str(error).splitlines()[-1]
        raise SplitError(f"split {split!r}: {reason.rstrip('.')}; {_choices(sizes)}") from error
    # TFDS writes None for an end of the whole split.
    spans = tuple(
        Span(each.splitname, each.from_ or 0, sizes[each.splitname] if each.to is None else each.to)
        for each in instructions
    )
    spans = tuple(span for span in spans if span.stop > span.start)
    if not spans:
        raise SplitError(f"split {split!r} holds no image; {_choices(sizes)}")
    return spans


def _choices(sizes: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} ({size} images)" for name, size in sizes.items())
    return f"expected a part of: {listed}; for example '{next(iter(sizes))}[:10%]'"
