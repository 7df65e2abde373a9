"""Batches in an order that depends on the seed and the step, and on nothing else.

Worker processes import this module: Grain and JAX, which take seconds, are imported where used.
"""

import collections
import contextlib
import functools
import gc
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypedDict, TypeVar

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from invariance_jax import signals
from invariance_jax.data.decode import BadImage, decode
from invariance_jax.data.shared_memory import Block, take
from invariance_jax.data.sources import DataError, Example, Source
from invariance_jax.errors import UserError

if TYPE_CHECKING:
    import jax

T = TypeVar("T")
R = TypeVar("R")
Positions = Int[np.ndarray, " batch"]

# Every thread holds a batch of canvases, some 200 MB at 256 images of 512 pixels.
_MOST_THREADS = 16
# More in a row are no accident: the data set is broken.
_MOST_BAD_IN_A_ROW = 100
# One that it reads, one that waits to be looked at.
_BATCHES_PER_WORKER = 2


class Batch(TypedDict):
    """One process's part of a global batch.

    Attributes:
        canvas: Images at the top left of squares of zeros, 0 to 255.
        height: Height of each image on its canvas, pixels.
        width: Width of each image, pixels.
        label: Class of each image; -1 if the source has no labels.
        index: Position of each image in the source.
        mask: False on padding, which only the last batches of an evaluation have.
    """

    canvas: UInt8[np.ndarray, "batch canvas canvas 3"]
    height: Int32[np.ndarray, " batch"]
    width: Int32[np.ndarray, " batch"]
    label: Int32[np.ndarray, " batch"]
    index: Int32[np.ndarray, " batch"]
    mask: Bool[np.ndarray, " batch"]


def train_batches(
    source: Source,
    *,
    batch_size: int,
    canvas_size: int,
    seed: int,
    start_step: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    on_bad_image: Callable[[BadImage], object] | None = None,
) -> Iterator[Batch]:
    """Gives shuffled batches without end.

    The images form one infinite stream: each epoch is another permutation of the source, and
    epochs follow each other inside a batch, so nothing is dropped. The global batch of step `s`
    holds the images `s * batch_size` to `(s + 1) * batch_size - 1` of the stream; process `p`
    gets the `p`-th of `process_count` equal consecutive parts. So the global batch of a step
    depends on the seed and the step only, and to resume means to start at a later step.

    Args:
        source: The images.
        batch_size: Images in a global batch.
        canvas_size: Side of the canvas, pixels.
        seed: Of the permutations, at least 0.
        start_step: Step of the first batch.
        workers: Processes that decode, each whole batches; 0 for threads of this process. They
            are spawned: a script that uses them needs `if __name__ == "__main__"`.
        process_index: Which part of the global batch.
        process_count: How many parts there are.
        on_bad_image: Called for every image that cannot be decoded, each time it is met; the
            next image of the source takes its place, so that batches stay full and depend on
            the seed and the step only. None makes such an image an error.

    Returns:
        Batches for step `start_step`, `start_step + 1`, ...

    Raises:
        UserError: `batch_size` is not divisible by `process_count`, or the source has no labels.
        DataError: On iteration: an image cannot be decoded or has no label.
    """
    import grain

    if not source.has_labels:
        raise UserError(f"{source.name} {source.split} has no labels to train on")
    local_size = _local_size(batch_size, process_count)
    # Grain adds the epoch to the seed, so that seed 1 would repeat seed 0 one epoch later.
    shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    stream = grain.MapDataset.range(len(source)).shuffle(seed=shuffle_seed).repeat()
    first = start_step * process_count + process_index
    # Without drop_remainder Grain computes the length in floating point, which overflows.
    positions = stream.batch(local_size, drop_remainder=True)[first::process_count]
    rows = map(positions.__getitem__, itertools.count())
    return _batches(source, rows, canvas_size, workers, on_bad_image)


def batches_at(
    source: Source,
    positions: Int[np.ndarray, "batches batch"],
    *,
    canvas_size: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Gives the images at chosen positions.

    Args:
        source: The images.
        positions: Those of each batch; any that are `len(source)` or more are padding, filled
            up with the last image, where `mask` is False.
        canvas_size: Side of the canvas, pixels.
        workers: Processes that decode; 0 for threads of this process.

    Returns:
        One batch for each row of `positions`.

    Raises:
        DataError: On iteration: an image cannot be decoded or has no label.
    """
    return _batches(source, positions, canvas_size, workers, None)


def _local_size(batch_size: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch_size is {batch_size}; expected a positive multiple of the number of processes, "
            f"{process_count}"
        )
    return batch_size // process_count


def _read(
    source: Source, canvas_size: int, skip: bool, blocks: list[Block] | None, positions: Positions
) -> tuple[Batch, list[BadImage]]:
    """Decodes the images at `positions`; positions after the end are padding."""
    size = len(positions)
    index = np.minimum(positions, len(source) - 1).astype(np.int32)
    bad: list[BadImage] = []
    shape = (size, canvas_size, canvas_size, 3)
    # If anything raises, the run ends, and with it a worker and its blocks.
    block = None if blocks is None else take(blocks, shape)
    canvases = np.empty(shape, np.uint8) if block is None else block.pixels
    batch = {
        "canvas": canvases if block is None else block,
        "height": np.zeros(size, np.int32),
        "width": np.zeros(size, np.int32),
        "label": np.zeros(size, np.int32),
        "index": index,
        "mask": positions < len(source),
    }
    for row, canvas in enumerate(canvases):
        index[row], example, pixels = _decoded(source, canvas_size, int(index[row]), skip, bad)
        height, width = pixels.shape[:2]
        # Written in place: a batch of canvases is large, and stacking would copy it.
        canvas[:height, :width] = pixels
        canvas[:height, width:] = 0
        canvas[height:] = 0
        batch["height"][row], batch["width"][row] = height, width
        batch["label"][row] = example["label"]
    return batch, bad


def _decoded(
    source: Source, canvas_size: int, position: int, skip: bool, bad: list[BadImage]
) -> tuple[int, Example, UInt8[np.ndarray, "height width 3"]]:
    """The image at `position`, or the next that can be decoded if bad ones may be skipped."""
    for place in range(position, position + min(_MOST_BAD_IN_A_ROW, len(source))):
        place %= len(source)
        example = source[place]
        name, label = example["name"], example["label"]
        if source.has_labels and not 0 <= label < source.num_classes:
            raise DataError(
                f"image {name!r} of {source.name} {source.split} has label {label}; expected 0 to "
                f"{source.num_classes - 1} (some test splits have no labels)"
            )
        try:
            return place, example, decode(example["image"], canvas_size)
        except DataError as error:
            if not skip:
                raise DataError(
                    f"image {name!r} of {source.name} {source.split}, number {place}: {error}"
                ) from error
            bad.append(BadImage(name=name, reason=str(error)))
    raise DataError(
        f"{len(bad)} images in a row, from {bad[0].name!r} on, of {source.name} {source.split} "
        f"cannot be decoded: {bad[0].reason}"
    )


def _batches(
    source: Source,
    rows: Iterable[Positions],
    canvas_size: int,
    workers: int,
    on_bad_image: Callable[[BadImage], object] | None,
) -> Iterator[Batch]:
    """Reads the images at the positions in each row."""
    read = functools.partial(_read, source, canvas_size, on_bad_image is not None)
    if workers:
        executor: Executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _begin_worker, (read,)
        )
        results = _in_order(executor, _read_in_worker, rows, _BATCHES_PER_WORKER * workers)
    else:
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        executor = ThreadPoolExecutor(threads, "decode")
        results = _in_order(executor, functools.partial(read, None), rows, threads)
    return _told(results, on_bad_image)


# What a worker process is there for; stays None in every other process.
_read_of_this_worker: Callable[[Positions], tuple[Batch, list[BadImage]]] | None = None


def _begin_worker(read: Callable[[list[Block], Positions], tuple[Batch, list[BadImage]]]) -> None:
    """Makes this process one that reads until the main process ends it or is gone itself."""
    global _read_of_this_worker
    _read_of_this_worker = functools.partial(read, [])
    # Whether to stop, and when, the main thread decides: a run that is told to stop saves first.
    for number in signals.NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()


def _end_with_the_main_process() -> None:
    # Returns when the system closes the other end of a pipe, whatever killed that process.
    multiprocessing.parent_process().join()
    os._exit(1)


def _leave_signals_to_the_main_thread() -> None:
    """For a thread that starts workers: they inherit it, and are safe while they still import."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.NUMBERS)


def _read_in_worker(positions: Positions) -> tuple[Batch, list[BadImage]]:
    return _read_of_this_worker(positions)


def _in_order(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Generator[R, None, None]:
    """A function of each item, `ahead` of them at once; the executor ends with the iterator."""
    queue: collections.deque[Future[R]] = collections.deque()
    rest = iter(items)
    try:
        while True:
            for item in itertools.islice(rest, ahead - len(queue)):
                queue.append(executor.submit(function, item))
            if not queue:
                return
            yield queue.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _told(
    results: Generator[tuple[Batch, list[BadImage]], None, None],
    on_bad_image: Callable[[BadImage], object] | None,
) -> Generator[Batch, None, None]:
    """The batches, of which the bad images have been told."""

    def tell(result: tuple[Batch, list[BadImage]]) -> Batch:
        batch, bad = result
        for each in bad:
            on_bad_image(each)
        return batch

    with contextlib.closing(results):
        # Not a loop: its variables would hold on to a batch while the next is awaited.
        yield from map(tell, results)


def prefetch_to_device(
    batches: Iterable[Mapping[str, np.ndarray]],
    sharding: "jax.sharding.NamedSharding",
    size: int = 2,
) -> Iterator[dict[str, "jax.Array"]]:
    """Moves batches to the devices ahead of their use, in a thread of its own.

    Neither waiting for a batch nor copying it, 200 MB for 256 canvases of 512 pixels, then keeps
    the consumer from giving the devices their next step.

    Args:
        batches: This process's part of every global batch, arrays [local batch, ...].
        sharding: How the leading axis is divided: `NamedSharding(mesh, PartitionSpec("data"))`.
        size: How many batches are moved while the consumer works on one; 0 moves each only when
            it is asked for.

    Yields:
        Global arrays [batch, ...], in order. What `batches` raises is raised here, in its place.
    """
    import jax

    iterator = iter(batches)

    def move(_: None) -> dict[str, jax.Array] | None:
        batch = next(iterator, None)
        return batch and {
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in batch.items()
        }

    # One thread only: it keeps the order.
    executor = ThreadPoolExecutor(1, "prefetch_to_device", _leave_signals_to_the_main_thread)
    moved = _in_order(executor, move, itertools.repeat(None), size + 1)
    try:
        yield from itertools.takewhile(lambda batch: batch is not None, moved)
    finally:
        # What is running must end before the iterator under it can be closed.
        moved.close()
        if isinstance(iterator, Generator):
            iterator.close()
        # The last batches hang in JAX's list of host memory to free: hundreds of MB, shared memory
        # among them, until Python happens to collect, be it the youngest objects alone.
        moved = iterator = None
        gc.collect(0)
