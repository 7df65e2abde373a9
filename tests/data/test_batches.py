"""Batches: the right images in an order that never changes, on the devices ahead of their use."""

import io
import itertools
import mmap
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from invariance_jax.data import (
    ArraySource,
    DataError,
    batches_at,
    decode,
    load_source,
    prefetch_to_device,
    train_batches,
)
from invariance_jax.errors import UserError

CANVAS = 10
# Only how long a broken test hangs.
PATIENCE_SECONDS = 30


def train(source, count, **options):
    options = {"batch_size": 4, "canvas_size": CANVAS, "seed": 0, "start_step": 0, **options}
    return list(itertools.islice(train_batches(source, **options), count))


def evaluation(source, batch_size=4, **options):
    """Every image once, in order; the last batch is filled up."""
    positions = np.arange(-(-len(source) // batch_size) * batch_size).reshape(-1, batch_size)
    return list(batches_at(source, positions, **{"canvas_size": CANVAS, **options}))


def order(batches) -> list[int]:
    return np.concatenate([batch["index"] for batch in batches]).tolist()


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert set(one) == set(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]))


def joined(parts):
    """Global batches from the batches of every process."""
    return [
        {name: np.concatenate([batch[name] for batch in same]) for name in same[0]}
        for same in zip(*parts, strict=True)
    ]


def test_a_batch_holds_the_images_it_names(pixel_source, image_pixels):
    (batch,) = train(pixel_source(7), 1)
    dtypes = {name: array.dtype.name for name, array in batch.items()}
    assert dtypes == {
        "canvas": "uint8",
        "height": "int32",
        "width": "int32",
        "label": "int32",
        "index": "int32",
        "mask": "bool",
    }
    assert batch["canvas"].shape == (4, CANVAS, CANVAS, 3)
    assert batch["mask"].all()
    np.testing.assert_array_equal(batch["label"], batch["index"])
    for row, index in enumerate(batch["index"]):
        pixels = image_pixels(int(index))
        height, width = pixels.shape[:2]
        assert (batch["height"][row], batch["width"][row]) == (height, width)
        expected = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        expected[:height, :width] = pixels
        np.testing.assert_array_equal(batch["canvas"][row], expected)


def test_epochs_are_different_permutations_and_nothing_is_dropped(pixel_source):
    """Batches of 4 from 7 images: epochs begin inside batches."""
    stream = order(train(pixel_source(7), 21))
    epochs = [tuple(stream[i : i + 7]) for i in range(0, 84, 7)]
    assert len(epochs) == 12
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(epochs)) == 12


def test_seeds_give_unrelated_orders(pixel_source):
    streams = [order(train(pixel_source(30), 45, seed=seed)) for seed in range(3)]
    epochs = [tuple(s[i : i + 30]) for s in streams for i in range(0, 180, 30)]
    assert len(set(epochs)) == len(epochs)


def test_order_never_changes(pixel_source):
    """Runs are resumed with newer versions: the order is written down here."""
    assert order(train(pixel_source(10), 3, seed=3)) == [0, 3, 1, 2, 4, 5, 6, 7, 9, 8, 5, 8]


@pytest.mark.parametrize("step", [1, 2, 5])
def test_resumed_stream_is_the_same(pixel_source, step):
    source = pixel_source(7)
    assert_equal(train(source, 8)[step:], train(source, 8 - step, start_step=step))


def test_stream_has_no_end(pixel_source):
    """Far beyond 32 bits, and still in step with epochs: 7 * 10^11 batches are whole epochs."""
    source = pixel_source(7)
    stream = order(train(source, 7, start_step=7 * 10**11))
    assert all(sorted(stream[i : i + 7]) == list(range(7)) for i in range(0, 28, 7))
    assert stream != order(train(source, 7))


def test_batch_larger_than_the_source(pixel_source):
    (batch,) = train(pixel_source(3), 1, batch_size=8)
    assert sorted(batch["index"][:3]) == sorted(batch["index"][3:6]) == [0, 1, 2]


def test_source_of_one_image(pixel_source):
    assert order(train(pixel_source(1), 2, batch_size=1)) == [0, 0]


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_same_training_batches(pixel_source, process_count):
    source = pixel_source(7)
    parts = [
        train(source, 6, start_step=2, process_index=i, process_count=process_count)
        for i in range(process_count)
    ]
    assert parts[0][0]["canvas"].shape[0] == 4 // process_count
    assert_equal(joined(parts), train(source, 6, start_step=2))


def test_evaluation_shows_every_image_once(pixel_source, image_pixels):
    batches = evaluation(pixel_source(10))
    assert [len(batch["mask"]) for batch in batches] == [4, 4, 4]
    assert order(batches) == [*range(10), 9, 9]
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.tolist() == [True] * 10 + [False] * 2
    last = image_pixels(9)
    for row in (1, 2, 3):
        np.testing.assert_array_equal(
            batches[-1]["canvas"][row, : last.shape[0], : last.shape[1]], last
        )
        assert batches[-1]["height"][row] == last.shape[0]
        assert batches[-1]["label"][row] == 9


def test_evaluation_of_whole_batches_is_not_padded(pixel_source):
    batches = evaluation(pixel_source(8))
    assert order(batches) == list(range(8))
    assert all(batch["mask"].all() for batch in batches)


def test_resume_on_another_number_of_processes(pixel_source):
    """Steps 0 to 2 by two processes, 3 to 5 by one, 6 and 7 by four: one process's stream."""
    source = pixel_source(7)
    stream = []
    for count, first, steps in ((2, 0, 3), (1, 3, 3), (4, 6, 2)):
        parts = [
            train(source, steps, start_step=first, process_index=i, process_count=count)
            for i in range(count)
        ]
        stream += joined(parts)
    assert_equal(stream, train(source, 8))


@pytest.mark.parametrize(("batch_size", "process_count"), [(5, 2), (0, 1), (-4, 2)])
def test_batch_that_cannot_be_divided(pixel_source, batch_size, process_count):
    options = {"batch_size": batch_size, "canvas_size": 8, "process_count": process_count}
    message = f"batch_size is {batch_size}; expected a positive multiple .* {process_count}"
    with pytest.raises(UserError, match=message):
        train_batches(pixel_source(7), seed=0, start_step=0, **options)


@pytest.mark.parametrize("run", [lambda source: train(source, 4), evaluation])
def test_unreadable_image_is_named(pixel_source, run):
    message = "^image 'pixels_5' of pixels train, number 5: cannot decode 12 bytes: no image format"
    with pytest.raises(DataError, match=message) as caught:
        run(pixel_source(7, unreadable=[5]))
    assert "\n" not in str(caught.value)


def test_next_good_image_takes_a_bad_one_s_place(pixel_source):
    """6 and 0 are bad, so 1 stands in for both; all else is as if they were good."""
    found = []
    batches = train(pixel_source(7, unreadable=[6, 0, 3]), 7, on_bad_image=found.append)
    expected = [{0: 1, 6: 1, 3: 4}.get(i, i) for i in order(train(pixel_source(7), 7))]
    assert order(batches) == expected
    assert_equal(batches, [_with_images(batch, pixel_source(7)) for batch in batches])
    # 28 images of the stream are four epochs; 6 leads to 0.
    assert sorted(bad.name for bad in found) == [
        name
        for name in ("pixels_0", "pixels_3", "pixels_6")
        for _ in range(4 + 4 * name.endswith("0"))
    ]
    assert {bad.reason for bad in found} == {"cannot decode 12 bytes: no image format known"}


def _with_images(batch, source):
    """What a batch must be that holds the images at its own indices."""
    expected = {**batch, "canvas": np.zeros_like(batch["canvas"]), "label": batch["index"].copy()}
    expected["mask"] = np.ones_like(batch["mask"])
    for row, index in enumerate(batch["index"]):
        pixels = decode(source[int(index)]["image"], CANVAS)
        expected["canvas"][row, : pixels.shape[0], : pixels.shape[1]] = pixels
        expected["height"][row], expected["width"][row] = pixels.shape[:2]
    return expected


@pytest.mark.parametrize("process_count", [1, 2])
def test_resume_with_bad_images(pixel_source, process_count):
    source = pixel_source(7, unreadable=[0, 3, 4])
    parts = [
        train(
            *(source, 4),
            **{"start_step": 3, "process_index": i, "process_count": process_count},
            on_bad_image=lambda bad: None,
        )
        for i in range(process_count)
    ]
    assert_equal(joined(parts), train(source, 7, on_bad_image=lambda bad: None)[3:])


def test_data_set_of_bad_images_only(pixel_source):
    source = pixel_source(3, unreadable=[0, 1, 2])
    with pytest.raises(DataError, match=r"3 images in a row, from 'pixels_\d' on, of pixels train"):
        train(source, 1, on_bad_image=lambda bad: None)


@pytest.mark.parametrize("labels", [[0, -1], [0, 3]])
def test_label_of_an_array_that_is_no_class(image_pixels, labels):
    source = ArraySource([image_pixels(0)] * 2, labels, class_names="abc")
    with pytest.raises(DataError, match=f"'image_00001'.* label {labels[1]}; expected 0 to 2"):
        evaluation(source)


@pytest.mark.parametrize("label", [-1, 7])
def test_missing_label_is_an_error(pixel_source, label):
    with pytest.raises(DataError, match=f"'pixels_0'.* label {label}; expected 0 to 6"):
        evaluation(pixel_source(7, label=label))


def test_images_without_labels_are_read_but_not_trained_on(image_pixels):
    source = ArraySource([image_pixels(i) for i in range(3)])
    (batch,) = evaluation(source)
    assert batch["label"].tolist() == [-1] * 4
    for row, index in enumerate(batch["index"]):
        height, width = batch["height"][row], batch["width"][row]
        pixels = batch["canvas"][row, :height, :width]
        np.testing.assert_array_equal(pixels, image_pixels(int(index)))
    with pytest.raises(UserError, match=r"^arrays all has no labels to train on$"):
        train(source, 1)


def test_batches_at_chosen_positions(pixel_source):
    source = pixel_source(7)
    positions = np.array([[5, 0, 5], [6, 7, 900]])
    first, last = batches_at(source, positions, canvas_size=CANVAS)
    assert first["index"].tolist() == [5, 0, 5] and first["mask"].all()
    assert last["index"].tolist() == [6, 6, 6] and last["mask"].tolist() == [True, False, False]
    assert_equal([first], [_with_images(first, source)])
    assert_equal([{**last, "mask": np.ones(3, bool)}], [_with_images(last, source)])


STEPS = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory, dataset_writer, image_pixels):
    """Seven image files, two of them damaged."""
    images = []
    for number in range(7):
        file = io.BytesIO()
        Image.fromarray(image_pixels(number)).save(file, "PNG")
        images.append({1: file.getvalue()[:40], 3: b""}.get(number, file.getvalue()))
    folder = tmp_path_factory.mktemp("files")
    dataset_writer(folder, splits={"train": [4, 3]}, images=images)
    return load_source("tiny", "train", data_dir=str(folder))


@pytest.fixture(scope="module")
def by_workers(files):
    """What two worker processes read: each batch as it came, and some held on to meanwhile.

    Signals come to the workers in between, as from a shell or a scheduler that stops a whole job.
    """
    found, taken, held = [], [], {}
    options = {"batch_size": 4, "canvas_size": CANVAS, "seed": 0, "start_step": 3, "workers": 2}
    batches = train_batches(files, **options, on_bad_image=found.append)
    moved = prefetch_to_device(batches, by_example(1))
    for number, batch in enumerate(itertools.islice(moved, STEPS)):
        taken.append({name: np.array(array) for name, array in batch.items()})
        if number % 4 == 0:
            held[number] = batch["canvas"]
        if number in (0, 9):
            workers = [process.pid for process in multiprocessing.active_children()]
            assert len(workers) == 2
            for worker, sent in itertools.product(workers, (signal.SIGTERM, signal.SIGINT)):
                os.kill(worker, sent)
    status = [pathlib.Path(f"/proc/{worker}/status").read_text() for worker in workers]
    held = {number: np.array(canvas) for number, canvas in held.items()}
    moved.close()
    return found, taken, held, status


def test_worker_processes_give_the_same_batches(files, by_workers):
    found, taken, *_ = by_workers
    told = []
    assert_equal(taken, train(files, STEPS, start_step=3, on_bad_image=told.append))
    # They are a few batches ahead.
    assert found[: len(told)] == told
    assert {bad.name for bad in found} == {"tiny-train-1", "tiny-train-3"}
    assert set(order(taken)) == {0, 2, 4, 5, 6}


def test_batches_in_use_are_not_overwritten(by_workers):
    """Neither those that a device holds nor those that were dropped at once, while more came."""
    _, taken, held, _ = by_workers
    assert sorted(held) == [0, 4, 8, 12, 16, 20]
    for number, canvas in held.items():
        np.testing.assert_array_equal(canvas, taken[number]["canvas"])


def test_signals_do_not_reach_workers_that_are_still_starting(by_workers):
    """Blocked by inheritance, from their first instruction on; later they ignore them as well."""
    *_, status = by_workers
    for name in ("SigBlk", "SigIgn"):
        for text in status:
            mask = int(re.search(rf"{name}:\s*(\w+)", text)[1], 16)
            assert all(mask & 1 << number - 1 for number in (signal.SIGTERM, signal.SIGINT))


def test_workers_end_with_a_main_process_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import sys
from invariance_jax.data import load_source, train_batches
if __name__ == "__main__":
    source = load_source("digits", "validation")
    batches = train_batches(
        source, batch_size=4, canvas_size=32, seed=0, start_step=0, workers=2
    )
    next(batches), next(batches)
    print("ready", flush=True)
    sys.stdin.read()
""")
    # The workers inherit its output: that ends when the last of them has ended.
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    options["env"] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], text=True, **options) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == -signal.SIGKILL


def test_worker_processes_end_with_the_images():
    source = load_source("digits", "validation[:21]")
    options = {"canvas_size": 32, "batch_size": 5}
    batches = evaluation(source, workers=2, **options)
    assert_equal(batches, evaluation(source, **options))
    # No copy: they lie where the workers wrote them.
    assert all(isinstance(batch["canvas"].base, mmap.mmap) for batch in batches)


def test_worker_processes_report_errors(tmp_path, dataset_writer):
    dataset_writer(tmp_path, splits={"train": [4]}, labels=[0, 1, 2, 3])
    source = load_source("tiny", "train", data_dir=str(tmp_path))
    batches = batches_at(source, np.arange(4).reshape(2, 2), canvas_size=CANVAS, workers=1)
    part = load_source("tiny", "train[:2]", data_dir=str(tmp_path))
    assert_equal([next(batches)], evaluation(part, batch_size=2))
    with pytest.raises(DataError, match="'tiny-train-3' of tiny train has label 3"):
        next(batches)


@pytest.mark.real_data
def test_imagenet(real_data):
    source = load_source("imagenet2012", "train", data_dir=str(real_data / "tfds"))
    batches = train(source, 2, canvas_size=64, batch_size=16)
    assert_equal(train(source, 1, canvas_size=64, batch_size=16, start_step=1), batches[1:])
    for batch in batches:
        assert (batch["height"] == 64).all()
        labels = [source[int(i)]["label"] for i in batch["index"]]
        np.testing.assert_array_equal(batch["label"], labels)


def by_example(devices: int) -> NamedSharding:
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    return NamedSharding(mesh, PartitionSpec("data"))


class Numbers:
    """Batches that tell how many of them have been taken."""

    def __init__(self, count):
        self.taken, self.closed, self.threads = 0, False, set()
        self._count, self._changed = count, threading.Condition()

    def __iter__(self):
        try:
            for number in range(self._count):
                with self._changed:
                    self.taken += 1
                    self.threads.add(threading.get_ident())
                    self._changed.notify()
                yield {"number": np.full(8, number)}
        finally:
            self.closed = True

    def wait_for(self, taken):
        with self._changed:
            assert self._changed.wait_for(lambda: self.taken >= taken, PATIENCE_SECONDS)


@pytest.mark.parametrize("devices", [1, 8])
def test_values_and_sharding(pixel_source, devices):
    sharding = by_example(devices)
    expected = evaluation(pixel_source(20), batch_size=8)
    result = list(prefetch_to_device(expected, sharding))
    assert len(result) == len(expected) == 3
    for ours, theirs in zip(result, expected, strict=True):
        assert set(ours) == set(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(ours[name], theirs[name])
    canvas = result[0]["canvas"]
    assert canvas.sharding == sharding
    assert len(canvas.addressable_shards) == devices
    for shard in canvas.addressable_shards:
        np.testing.assert_array_equal(shard.data, expected[0]["canvas"][shard.index])


@pytest.mark.parametrize("size", [0, 1, 2])
def test_batches_are_taken_ahead_and_no_further(size):
    numbers = Numbers(6)
    moved = prefetch_to_device(numbers, by_example(1), size)
    assert numbers.taken == 0
    for step in range(6):
        assert int(next(moved)["number"][0]) == step
        numbers.wait_for(min(6, step + 1 + size))
        assert numbers.taken == min(6, step + 1 + size)
    assert next(moved, None) is None
    assert numbers.threads.isdisjoint({threading.get_ident()})


def test_source_is_closed_with_the_iterator():
    numbers = Numbers(6)
    batches = iter(numbers)
    moved = prefetch_to_device(batches, by_example(1))
    next(moved)
    moved.close()
    assert numbers.closed  # though `batches` is still here
    assert numbers.taken <= 3


def test_error_comes_after_the_batches_before_it():
    def broken():
        yield {"number": np.zeros(8)}
        raise ValueError("broken")

    moved = prefetch_to_device(broken(), by_example(1))
    assert next(moved)["number"].shape == (8,)
    with pytest.raises(ValueError, match="broken"):
        next(moved)
    assert next(moved, None) is None
