"""The one loop over a source: whatever is measured, on all devices and processes, in shards.

A batch is decoded once and goes through one program, which holds the forward pass of the images as
they are and the step of every measurement that was asked for. Every process takes its own shards
and its own devices; nothing travels between processes but the results, by the folder of shards
or, where there is none, at the end.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from invariance_jax import data, devices, distributed, progress
from invariance_jax.augment import Augmentation
from invariance_jax.devices import DATA_AXIS
from invariance_jax.errors import UserError
from invariance_jax.evaluation import walk
from invariance_jax.evaluation.measurement import (
    Images,
    Matrix,
    Measurement,
    Network,
    Seen,
    prepare,
)
from invariance_jax.evaluation.shards import POSITIONS, Shards
from invariance_jax.models import Model

Found = dict[str, Any]
# How much of the limit is aimed at: what grows with the batch is not quite a line.
_AIM = 0.9
_TRIES = 4
_FIRST_GUESS = 32
# A batch is compiled anew if it can grow by as much.
_WORTHWHILE = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Driver:
    """Measures a network on every image of a source.

    Attributes:
        model: The network; its variables may be replaced at each run.
        measurements: What is measured; each image is read once for all of them.
        source: The images.
        preprocess: Canvas to image, without randomness; `none` as a rule.
        canvas_size: Side of the canvas, pixels.
        workers: Processes that decode; 0 for threads.
        mesh: The devices of all processes.
        per_device_batch_size: Images that one device embeds in one forward pass; 0 for as many as
            fit into `memory`.
        memory: Bytes of a device's memory that the program may fill.
        shard_size: Most images of a shard, which is computed and saved as a whole.
        description: Names the network in progress bars; empty for no bar.
    """

    model: Model
    measurements: Sequence[Measurement]
    source: data.Source
    preprocess: Augmentation
    canvas_size: int
    workers: int
    mesh: Mesh
    per_device_batch_size: int
    memory: int
    shard_size: int
    description: str

    @functools.cached_property
    def _local(self) -> Mesh:
        return devices.local_mesh(self.mesh)

    @functools.cached_property
    def permutation(self) -> np.ndarray | None:
        """What pairs the images; None if every measurement takes each image by itself."""
        found = [each.permutation(len(self.source)) for each in self.measurements]
        pairs = [each for each in found if each is not None]
        for each in pairs[1:]:
            if not np.array_equal(each, pairs[0]):
                raise ValueError("measurements of one run must pair the images in the same way")
        return pairs[0] if pairs else None

    @functools.cached_property
    def _together(self) -> int:
        """Images that one device must see beside each other."""
        return max(each.together for each in self.measurements)

    def _walks(self) -> list[walk.Walk]:
        """The shards; a measurement of groups of images says which, and is taken alone."""
        if self._together == 1:
            return walk.walks(len(self.source), self.shard_size, self.permutation)
        if len(self.measurements) > 1:
            raise ValueError("a measurement of groups of images shares no run with others")
        order = self.measurements[0].order(self.source)
        return walk.walks_of_groups(order, self._together, self.shard_size)

    @functools.cached_property
    def images(self) -> Images:
        """Names and labels, which the source has without decoding."""
        labels = self.source.labels()
        return Images(
            names=self.source.names(),
            labels=labels if self.source.has_labels else None,
            class_names=self.source.class_names,
        )

    @functools.cached_property
    def plan(self) -> tuple[Callable[..., Any], list[list[walk.Walk]]]:
        """The compiled program and every shard's batches."""
        shards = self._walks()
        # A small set fills no large batch.
        most = -(-max(len(shard.positions) for shard in shards) // self._local.size)

        def size(largest_pass: int) -> int:
            return walk.batch_size(
                shards,
                devices=self._local.size,
                largest_pass=min(largest_pass, most),
                together=self._together,
            )

        program, largest_pass = self.fitting(size)
        return program, walk.batches(shards, size(largest_pass))

    def fitting(self, batch_size: Callable[[int], int]) -> tuple[Any, int]:
        """Compiles the program for as many images as fit.

        Args:
            batch_size: From the images of the largest forward pass on one device to those of a
                batch on all.

        Returns:
            The compiled program, and the images of its largest forward pass on one device.

        Raises:
            UserError: Not even one fits into `memory`.
        """
        given = self.per_device_batch_size
        tried = given or max(1, batch_size(_FIRST_GUESS) // self._local.size)
        best = None
        for left in reversed(range(_TRIES)):
            compiled = self._compiled(batch_size(tried), tried)
            if given:
                return compiled, given
            fixed, growing = self._bytes(compiled, batch_size(tried))
            fits = fixed + growing <= self.memory
            if fits:
                best = compiled, tried
            elif tried == 1:
                break
            # Along a line through what was tried.
            better = int(_AIM * (self.memory - fixed) / growing * tried)
            if fits and better < _WORTHWHILE * tried:
                break
            # The last try decides whether anything fits.
            smaller = min(better, tried - 1) if left > 1 else 1
            tried = max(1, better if fits else smaller)
        if best is None:
            raise UserError(
                f"config.eval.memory is {self.memory} bytes a device; expected at least "
                f"{fixed + growing}, what the compiled program and one image need (or give "
                "config.eval.per_device_batch_size)"
            )
        return best

    def _bytes(self, compiled: Any, batch_size: int) -> tuple[int, int]:
        """Bytes of a device that do not grow with the batch, and those that do."""
        analysis = compiled.memory_analysis()
        if analysis is None:
            raise UserError(
                "this platform does not say how much memory a program needs; give "
                "config.eval.per_device_batch_size"
            )
        fixed = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.model.variables))
        # Two more batches wait on the device, see `data.prefetch_to_device`.
        waiting = sum(x.size * x.dtype.itemsize for x in self._abstract(batch_size).values())
        used = (
            analysis.temp_size_in_bytes
            + analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
            + 2 * waiting // self._local.size
        )
        return fixed, max(used - fixed, 1)

    def _compiled(self, batch_size: int, largest_pass: int) -> Any:
        whole, divided = devices.replicated(self._local), devices.by_example(self._local)
        program = jax.jit(
            self._program(largest_pass),
            in_shardings=(whole, divided, whole),
            out_shardings=(divided, whole),
        )
        variables = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.model.variables
        )
        return program.lower(variables, self._abstract(batch_size), self._last).compile()

    def _abstract(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a batch."""
        canvas = (batch_size, self.canvas_size, self.canvas_size, 3)
        numbers = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        return {
            "canvas": jax.ShapeDtypeStruct(canvas, jnp.uint8),
            **dict.fromkeys(("height", "width", "label", "index"), numbers),
        }

    @functools.cached_property
    def _last(self) -> Any:
        """Shapes and dtypes of what is carried from one image to the next."""
        return jax.eval_shape(
            lambda variables, batch: self._look(variables, batch)[1],
            self.model.variables,
            self._abstract(1),
        )

    def run(
        self, variables: Any = None, shards: Mapping[str, Shards] | None = None
    ) -> list[tuple[Measurement, Found]] | None:
        """Measures what is missing.

        Args:
            variables: Of the network, on any mesh or on the host; the model's own by default.
            shards: The folder of finished shards of each measurement by its name, claimed by this
                very measurement; None keeps everything in memory.

        Returns:
            Every measurement with its arrays over all images, in the source's order, or over all
            groups of images. With shards, None in all processes but the first.

        Raises:
            UserError: Something is not finite (the image is named), memory is too small, or the
                disk is full.
        """
        variables = self.model.variables if variables is None else variables
        (found,) = self.run_each([variables], shards)
        return found

    def run_each(
        self, networks: Sequence[Any], shards: Mapping[str, Shards] | None = None
    ) -> list[list[tuple[Measurement, Found]] | None]:
        """Measures several networks that differ in their variables alone; images are read once.

        Args:
            networks: Variables of each, as `run` takes them.
            shards: As `run` takes them, for one network.

        Returns:
            What `run` gives of each.

        Raises:
            UserError: As `run`.
        """
        networks = [devices.replicated_copy(each, self.mesh, self._local) for each in networks]
        shown = bool(self.description)
        what = f"{self.description}: compiling"
        with progress.bar(total=1, description=what, unit="program", shown=shown) as bar:
            program, batches = self.plan
            bar.update()
        measured = [
            {
                name: np.concatenate([getattr(each, name)[each.measured] for each in shard])
                for name in ("positions", "numbers")
            }
            for shard in batches
        ]
        numbers_of = [shard["numbers"] for shard in measured]
        missing = {
            each.name: set(
                range(len(batches)) if shards is None else shards[each.name].missing(numbers_of)
            )
            for each in self.measurements
        }
        # All have looked before the first shard is written.
        devices.barrier("shards looked at")
        wanted = sorted(set().union(*missing.values()))
        mine = wanted[jax.process_index() :: jax.process_count()]
        # Read before the bar of the images is shown: they have one of their own.
        names_of_all = self.images.names if mine else []
        kept: list[dict[str, list[Found]]] = [
            {each.name: [] for each in self.measurements} for _ in networks
        ]
        for shard, of_networks in self._shards(program, networks, batches, mine):
            names = [names_of_all[position] for position in measured[shard]["positions"]]
            for found, mine_kept in zip(of_networks, kept, strict=True):
                for each in self.measurements:
                    each.check(found[each.name], names)
                for each in self.measurements:
                    arrays = {POSITIONS: numbers_of[shard], **found[each.name]}
                    if shards is None:
                        mine_kept[each.name].append(arrays)
                    elif shard in missing[each.name]:
                        shards[each.name].save(shard, arrays, each.matrices)
        devices.barrier("shards done")
        if shards is None:
            return [
                [
                    (each, _joined(each, [_as_loaded(each, shard) for shard in gathered]))
                    for each in self.measurements
                    for gathered in [self._of_all_processes(each, of_network[each.name])]
                ]
                for of_network in kept
            ]
        if not distributed.is_lead():
            return [None]
        loaded = [
            (
                each,
                _joined(each, [shards[each.name].load(shard) for shard in range(len(batches))]),
            )
            for each in self.measurements
        ]
        return [loaded]

    def _shards(
        self,
        program: Callable[..., Any],
        networks: Sequence[Any],
        batches: list[list[walk.Walk]],
        mine: Sequence[int],
    ) -> Iterator[tuple[int, list[dict[str, Found]]]]:
        """Each shard's number and what was found of its images with every network."""
        rows = [(shard, each) for shard in mine for each in batches[shard]]
        if not rows:
            return
        read = data.batches_at(
            self.source,
            np.stack([each.positions for _, each in rows]),
            canvas_size=self.canvas_size,
            workers=self.workers,
        )
        moved = data.prefetch_to_device(read, devices.by_example(self._local))

        def results() -> Iterator[Any]:
            last = jax.device_put(self.nothing_before(), devices.replicated(self._local))
            carried = [last] * len(networks)
            for batch in moved:
                del batch["mask"]
                of_networks = [
                    program(variables, batch, last)
                    for variables, last in zip(networks, carried, strict=True)
                ]
                carried = [last for _, last in of_networks]
                yield [found for found, _ in of_networks]

        total = sum(int(each.measured.sum()) for _, each in rows)
        shown = bool(self.description)
        with progress.bar(
            total=total, description=self.description, unit="images", shown=shown
        ) as bar:
            fetched = devices.one_behind(results())
            for shard in mine:
                parts = []
                for each in batches[shard]:
                    found = next(fetched)
                    parts.append(jax.tree.map(lambda x, rows=each.measured: x[rows], found))
                    bar.update(int(each.measured.sum()))
                yield shard, jax.tree.map(lambda *x: np.concatenate(x), *parts)

    def nothing_before(self) -> Any:
        """What is carried to the first row, of which nothing is measured: zeros."""
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._last)

    def _look(self, variables: Any, batch: Mapping[str, Array]) -> tuple[Seen, Any]:
        """The images as they are, and what of them is carried to those that follow."""
        image = prepare(self.preprocess, batch)
        logits, features = self.model.apply(variables, self.model.normalize(image))
        seen = Seen(image=image, logits=logits, features=features, **batch)
        return seen, {each.name: each.carry(seen) for each in self.measurements}

    def _program(self, largest_pass: int) -> Callable[..., Any]:
        """`program(variables, batch, last) -> (found by measurement, what comes before the next)`.

        Every device works on its own images. Only what is carried from an image to the next one
        may come from another device.
        """
        on_each = functools.partial(
            jax.shard_map, mesh=self._local, out_specs=P(DATA_AXIS), check_vma=False
        )

        def measure(variables: Any, seen: Seen, previous: Any) -> dict[str, Found]:
            network = Network(
                variables=variables,
                apply=functools.partial(self.model.apply, variables),
                normalize=self.model.normalize,
                dtype=self.model.dtype,
                largest_pass=largest_pass,
                platform=self._local.devices.flat[0].platform,
            )
            return {
                each.name: each.step(network, seen, previous[each.name])
                for each in self.measurements
            }

        def program(variables: Any, batch: Mapping[str, Array], last: Any) -> tuple[Any, Any]:
            seen, carried = on_each(self._look, in_specs=(P(), P(DATA_AXIS)))(variables, batch)
            previous = jax.tree.map(
                lambda x, before: jnp.roll(x, 1, axis=0).at[:1].set(before), carried, last
            )
            found = on_each(measure, in_specs=(P(), P(DATA_AXIS), P(DATA_AXIS)))(
                variables, seen, previous
            )
            return found, jax.tree.map(lambda x: x[-1:], carried)

        return program

    def _of_all_processes(self, measurement: Measurement, mine: list[Found]) -> list[Found]:
        """What all processes found, each of which may have had no shard."""
        if jax.process_count() == 1:
            return mine
        smallest = self._abstract(self._together * self._local.size)
        shapes, _ = jax.eval_shape(self._program(1), self.model.variables, smallest, self._last)
        nothing = {
            POSITIONS: np.zeros(0, np.int64),
            **{
                name: np.zeros((0, *x.shape[1:]), x.dtype)
                for name, x in shapes[measurement.name].items()
            },
        }
        whole = jax.tree.map(lambda *x: np.concatenate(x), nothing, *mine)
        count = len(whole[POSITIONS])
        counts = multihost_utils.process_allgather(np.int64(count))
        padded = jax.tree.map(
            lambda x: np.pad(x, [(0, counts.max() - count), *[(0, 0)] * (x.ndim - 1)]), whole
        )
        gathered = multihost_utils.process_allgather(padded)
        return [
            jax.tree.map(lambda x, i=i, n=n: np.asarray(x[i, :n]), gathered)
            for i, n in enumerate(counts)
        ]


def _as_loaded(measurement: Measurement, shard: Found) -> Found:
    """A shard that was never saved, as `Shards.load` would give it: its matrices by row."""
    return {
        name: np.moveaxis(x, 1, 0) if name in measurement.matrices else x
        for name, x in shard.items()
    }


def _joined(measurement: Measurement, shards: Sequence[Found]) -> Found:
    """All shards as one, in the source's order."""
    positions = [shard[POSITIONS] for shard in shards]
    if not positions:
        return {}
    order = np.argsort(np.concatenate(positions))
    return {
        name: Matrix([shard[name] for shard in shards], positions)
        if name in measurement.matrices
        else np.concatenate([shard[name] for shard in shards])[order]
        for name in shards[0]
        if name != POSITIONS
    }
