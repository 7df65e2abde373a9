"""One pass over the images: memory, resuming, devices and processes."""

import collections
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import types

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invariance_jax import data
from invariance_jax.errors import UserError
from invariance_jax.evaluation import walk
from invariance_jax.evaluation.accuracy import Accuracy
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.shards import Shards
from invariance_jax.transforms import normalize

from . import one_process
from .conftest import (
    IMAGES,
    MEAN,
    MEASUREMENTS,
    SEED,
    assert_same,
    claimed,
    coloured,
    counted,
    few,
    grid,
    linear,
    make_driver,
    pixels_of,
)
from .one_process import SHARD, SHARDS, arrays_of, search_driver, small_driver

SCRIPT = pathlib.Path(one_process.__file__)
# Bounds of what takes seconds, on a machine that does other work too.
PATIENCE_SECONDS = 150


class Counting(data.SubsetSource):
    """Counts how often each image is read."""

    def __init__(self, source):
        super().__init__(source, np.arange(len(source)))
        self.reads, self._lock = collections.Counter(), threading.Lock()

    def __getitem__(self, index):
        with self._lock:
            self.reads[int(index)] += 1
        return super().__getitem__(index)


def shards_of(path):
    return {each.relative_to(path): each.stat().st_mtime_ns for each in path.rglob("*.np?")}


# Several measurements in one run


@pytest.mark.parametrize(
    ("per_device_batch_size", "shard_size", "count"),
    [(20, 100, 1), (1, 6, 8)],
    ids=["one batch", "eight devices, two shards"],
)
def test_together_they_give_what_each_gives_alone(
    alone, digits, model, tmp_path, per_device_batch_size, shard_size, count
):
    source, (network, traced) = Counting(digits), counted(model)
    driver = make_driver(
        list(MEASUREMENTS.values()),
        source,
        network,
        per_device_batch_size=per_device_batch_size,
        shard_size=shard_size,
        count=count,
    )
    shards = claimed(tmp_path, driver.measurements) if count > 1 else None
    found = driver.run(shards=shards)
    assert [each.name for each, _ in found] == list(MEASUREMENTS)
    for each, arrays in found:
        assert_same(each.name, each.datasets(arrays, driver.images), alone(each.name))
    # The network is traced for the shapes of what is carried, for the images as they are, and once
    # by each measurement but accuracy, whatever it measures.
    assert len(traced) == 2 + 4

    rows = walk.walks(IMAGES, shard_size, walk.pairing(IMAGES, SEED))
    read = collections.Counter(int(i) for shard in rows for i in shard.positions)
    leads = sum(len(shard.positions) - int(shard.measured.sum()) for shard in rows)
    # Once for all measurements, but for what comes before a shard or a cycle of the pairing, and
    # what fills a batch up.
    assert sorted(source.reads) == list(range(IMAGES)) and not read - source.reads
    assert 0 < leads <= len(rows) + 3
    places = sum(len(part.positions) for parts in driver.plan[1] for part in parts)
    assert source.reads.total() == places
    if count == 1:
        assert places == IMAGES + leads and source.reads == read


def test_without_pairs_each_image_is_read_exactly_once(digits, model):
    source = Counting(digits)
    driver = make_driver([Accuracy()], source, model, per_device_batch_size=11)
    # Names and labels are known without decoding.
    assert driver.images.names == digits.names() and not source.reads
    driver.run()
    assert source.reads == dict.fromkeys(range(IMAGES), 1)
    # The same program serves other variables, on the host or on the devices.
    other = linear(seed=2).variables
    for variables in (other, jax.device_put(other), model.variables):
        ((_, found),) = driver.run(variables)
        logits, _ = model.apply(variables, normalize(pixels_of(digits)))
        np.testing.assert_array_equal(found["predicted"], np.argmax(logits, axis=1))
    assert source.reads == dict.fromkeys(range(IMAGES), 4)
    # Several at once take one more reading.
    both = driver.run_each([other, model.variables])
    assert source.reads == dict.fromkeys(range(IMAGES), 5)
    for variables, ((_, found),) in zip((other, model.variables), both, strict=True):
        logits, _ = model.apply(variables, normalize(pixels_of(digits)))
        np.testing.assert_array_equal(found["predicted"], np.argmax(logits, axis=1))


def test_measurements_that_pair_the_images_differently_cannot_share_a_run(digits, model):
    with pytest.raises(ValueError, match="must pair the images in the same way"):
        make_driver([grid(seed=0), grid(seed=1)], digits, model).run()


# Memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costing(Driver):
    """Compiles nothing, but knows what a program would need."""

    constant: int
    slope: int

    def _compiled(self, batch_size, largest_pass):
        used = self.constant + self.slope * batch_size // self.mesh.size
        analysis = types.SimpleNamespace(
            temp_size_in_bytes=used, argument_size_in_bytes=0, output_size_in_bytes=0
        )
        return types.SimpleNamespace(memory_analysis=lambda: analysis, batch_size=batch_size)

    def needs(self, batch_size):
        return sum(self._bytes(self._compiled(batch_size, 0), batch_size))


@given(
    constant=st.integers(0, 2**24),
    slope=st.integers(2**8, 2**20),
    memory=st.integers(2**10, 2**32),
    count=st.sampled_from([1, 8]),
)
def test_the_batch_fits_and_is_not_needlessly_small(constant, slope, memory, count):
    count_images = 20_000
    costs = make_driver(
        [Accuracy()],
        data.SubsetSource(coloured(1), np.zeros(count_images, int)),
        MEAN,
        count=count,
        kind=functools.partial(Costing, constant=constant, slope=slope),
        per_device_batch_size=0,
        memory=memory,
        shard_size=count_images,
    )
    least = costs.needs(count)
    if least > memory:
        message = f"config.eval.memory is {memory} bytes a device; expected at least {least}, what"
        with pytest.raises(UserError, match=re.escape(message)):
            costs.plan  # noqa: B018
        return
    program, _ = costs.plan
    needed = costs.needs(program.batch_size)
    assert needed <= memory
    assert needed > memory / 3 or program.batch_size == count_images


@pytest.mark.parametrize(("memory", "count"), [(2**20, 1), (2**22, 8)])
def test_the_compiled_program_stays_below_the_limit(model, memory, count):
    source = data.SubsetSource(coloured(1), np.zeros(10_000, int))
    driver = make_driver(
        [grid(transforms=few("posterize"), equivariance=True)],
        source,
        model,
        count=count,
        per_device_batch_size=0,
        memory=memory,
        shard_size=10_000,
    )
    program, batches = driver.plan
    analysis = program.memory_analysis()
    used = (
        analysis.temp_size_in_bytes
        + analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
    )
    assert memory / 3 < used <= memory
    # Every device works on more than a few images.
    assert len(batches[0][0].positions) > 16 * count


def test_too_little_memory_is_refused_before_anything_is_read(digits, model):
    source = Counting(digits)
    driver = make_driver([Accuracy()], source, model, per_device_batch_size=0, memory=1000)
    message = (
        r"config\.eval\.memory is 1000 bytes a device; expected at least (\d+), what the compiled "
        r"program and one image need \(or give config\.eval\.per_device_batch_size\)"
    )
    with pytest.raises(UserError, match=message) as error:
        driver.run()
    assert not source.reads
    least = int(re.search(message, str(error.value))[1])
    # So much is enough, for one image at a time.
    enough = make_driver([Accuracy()], source, model, per_device_batch_size=0, memory=least)
    assert {len(part.positions) for parts in enough.plan[1] for part in parts} == {1}


# Shards on disk


@pytest.fixture(scope="module")
def small():
    """A driver, compiled once, and all that it finds in memory."""
    driver = small_driver()
    return driver, arrays_of(driver, driver.run())


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """The folder of a finished evaluation, and the shards in it."""
    driver, expected = small
    folder = tmp_path_factory.mktemp("finished")
    found = driver.run(shards=claimed(folder, driver.measurements))
    assert_identical(arrays_of(driver, found), expected)
    return folder


def assert_identical(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name


def test_a_finished_evaluation_computes_nothing(small, finished, capsys):
    driver, expected = small
    before = shards_of(finished)
    # Accuracy has a file a shard, the grid two matrices more.
    assert len(before) == SHARDS * (1 + 3)
    found = driver.run(shards=claimed(finished, driver.measurements))
    assert_identical(arrays_of(driver, found), expected)
    assert shards_of(finished) == before and "images" not in capsys.readouterr().err


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_byte(path):
    content = bytearray(path.read_bytes())
    # The last byte of the last array, before the archive's own list of its files.
    content[content.index(b"PK\x01\x02") - 1] ^= 0xFF
    path.write_bytes(content)


def of_another_measurement(path):
    """As a second evaluation of other weights leaves it that runs at the same time."""
    own = Shards(path.parent, {"name": path.parent.name}).load(int(path.stem))
    zeros = {name: np.zeros_like(x) for name, x in own.items()} | {"positions": own["positions"]}
    Shards(path.parent, {"name": "another"}).save(int(path.stem), zeros, set())


DAMAGES = {
    "invariance/00002.npz": half,
    "invariance/00003_difference_layer.npy": half,
    "invariance/00004_difference_embedding.npy": lambda path: path.write_bytes(b""),
    "invariance/00005.npz": of_another_measurement,
    "invariance/00006.npz": lambda path: path.write_bytes(b""),
    "accuracy/00000.npz": another_byte,
    "accuracy/00001.npz": lambda path: path.unlink(),
    "accuracy/00002.npz": of_another_measurement,
    "accuracy/00006.npz": lambda path: path.write_text("no shard"),
}


def test_damaged_shards_are_done_again_and_no_others(small, finished, tmp_path, capsys):
    driver, expected = small
    folder = tmp_path / "parts"
    shutil.copytree(finished, folder)
    for name, damage in DAMAGES.items():
        damage(folder / name)
    before = shards_of(folder)
    found = driver.run(shards=claimed(folder, driver.measurements))
    assert_identical(arrays_of(driver, found), expected)
    after = shards_of(folder)
    changed = {
        f"{path.parent.name}/{path.name[:5]}" for path in after if after[path] != before.get(path)
    }
    assert changed == {name.partition(".")[0].partition("_difference")[0] for name in DAMAGES}
    # All seven shards have something to do, and images are read for both measurements at once.
    assert "small: 100% 28/28 images" in capsys.readouterr().err


def test_shards_without_identity_are_those_of_nobody(small, finished, tmp_path):
    driver, expected = small
    folder = tmp_path / "parts"
    shutil.copytree(finished, folder)
    for each in driver.measurements:
        (folder / each.name / "identity.json").unlink()
    before = shards_of(folder)
    # The same measurement knows its own by their stamps.
    found = driver.run(shards=claimed(folder, driver.measurements))
    assert_identical(arrays_of(driver, found), expected)
    assert shards_of(folder) == before
    # Another one claims the folder and believes none of them.
    shards = {}
    for each in driver.measurements:
        (folder / each.name / "identity.json").unlink()
        shards[each.name] = Shards(folder / each.name, {"name": "another"})
        shards[each.name].claim(overwrite=False)
    assert_identical(arrays_of(driver, driver.run(shards=shards)), expected)
    after = shards_of(folder)
    assert after.keys() == before.keys() and not after.items() & before.items()


def test_shards_left_by_a_run_with_pairs_are_not_mixed_with_those_without(
    small, finished, tmp_path
):
    """What a shard holds depends on what else is measured."""
    _, expected = small
    folder = tmp_path / "parts"
    shutil.copytree(finished, folder)
    (folder / "accuracy" / "00006.npz").unlink()
    driver = make_driver([Accuracy()], coloured(one_process.IMAGES), linear(), shard_size=SHARD)
    found = arrays_of(driver, driver.run(shards=claimed(folder, driver.measurements)))
    wanted = {name: value for name, value in expected.items() if name.startswith("accuracy")}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-5)
        else:
            np.testing.assert_array_equal(found[name], value)


def test_a_folder_in_the_place_of_a_shard_ends_in_one_line(small, finished, tmp_path):
    driver, _ = small
    folder = tmp_path / "parts"
    shutil.copytree(finished, folder)
    (folder / "accuracy" / "00003.npz").unlink()
    (folder / "accuracy" / "00003.npz").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*accuracy.00003\.npz: Is a directory"):
        driver.run(shards=claimed(folder, driver.measurements))


# Other processes


def start(*arguments):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONWARNINGS": "error",
    }
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, output[-3000:]
    return output


def wait_for(process, path):
    """Waits until a file is there, and fails if the process ends before."""
    for _ in range(10 * PATIENCE_SECONDS):
        if path.exists():
            return
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(process.communicate()[0][-3000:])
    process.kill()
    raise AssertionError(f"{path} did not come:\n{process.communicate()[0][-3000:]}")


def test_a_killed_evaluation_goes_on_and_finds_the_same_bytes(small, tmp_path, capsys):
    driver, expected = small
    # It reads the last image in vain, some batches ahead of the one it works on.
    killed = start(tmp_path, tmp_path / "found.npz", "--hang")
    wait_for(killed, tmp_path / "invariance" / "00002.npz")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE_SECONDS)
    last = f"{SHARDS - 1:05d}.npz"
    assert not (tmp_path / "found.npz").exists() and not list(tmp_path.rglob(last))
    before = shards_of(tmp_path)
    # The grid's shard is written after that of accuracy.
    left = SHARD * (SHARDS - len(list(tmp_path.glob("invariance/*.npz"))))

    found = driver.run(shards=claimed(tmp_path, driver.measurements))
    assert_identical(arrays_of(driver, found), expected)
    assert before.items() < shards_of(tmp_path).items()  # nothing that was finished is done again
    assert f"small: 100% {left}/{left} images" in capsys.readouterr().err


def test_two_processes_find_what_one_finds_with_files_and_in_memory(small, tmp_path):
    _, expected = small
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [
        start(tmp_path / "parts", tmp_path / "found.npz", f"--process={i}", f"--port={port}")
        for i in range(2)
    ]
    texts = [finish(each) for each in both]
    # Four of seven shards for the first, so that three are the second's, which shows no bar; once
    # with files and once in memory.
    assert texts[0].count("small: 100% 16/16 images") == 2
    for name in ("found.npz", "found.0.npz", "found.1.npz"):
        assert_identical(dict(np.load(tmp_path / name)), expected)
    search = search_driver()
    for process in range(2):
        found = dict(np.load(tmp_path / f"found.{process}.search.npz"))
        assert_identical(found, arrays_of(search, search.run()))


def test_a_killed_search_goes_on_and_finds_the_same_bytes(tmp_path):
    killed = start(tmp_path, tmp_path / "found.npz", "--search", "--hang")
    wait_for(killed, tmp_path / "similarity_search" / "00002.npz")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE_SECONDS)
    before = shards_of(tmp_path)
    driver = search_driver()
    assert 3 <= len(before) < len(driver.plan[1]) and not (tmp_path / "found.npz").exists()
    expected = arrays_of(driver, driver.run())
    found = driver.run(shards=claimed(tmp_path, driver.measurements))
    assert_identical(arrays_of(driver, found), expected)
    assert before.items() < shards_of(tmp_path).items()
