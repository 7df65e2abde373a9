"""The two programs of the evaluation: features of images as they are, and the whole grid.

The features of N images at 130 cells would not fit in memory for long, their distances do. So z,
the features of each image as it is, is computed first for all images. The second program
transforms image j, and needs z[j] for the distance to itself and z[i] of the one image i whose
baseline uses j: pi(i) = j.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from invariance_jax.augment import Augmentation
from invariance_jax.devices import DATA_AXIS
from invariance_jax.evaluation import measures
from invariance_jax.evaluation.accuracy import prepare
from invariance_jax.evaluation.cells import Cells
from invariance_jax.evaluation.features import Embed, Layout
from invariance_jax.evaluation.shown import Source, Translation, make_show
from invariance_jax.transforms import Domain, Transform, normalize

Batch = Mapping[str, Array]
Step = Callable[[Any, Batch], dict[str, Array]]

# Normalised pixels that differ by less are equal: one grey level is more than 0.01.
_UNCHANGED = 1e-5

# Every result has the images on one axis, which is spread over the devices.
_FEATURE_RESULTS = {
    "features": P(DATA_AXIS),
    "prediction": P(DATA_AXIS),
    "correct": P(DATA_AXIS),
}
_GRID_RESULTS = {
    "transformed": P(None, None, None, DATA_AXIS),
    "baseline": P(None, None, None, DATA_AXIS),
    "baseline_unchanged": P(None, None, DATA_AXIS),
    "flip": P(None, DATA_AXIS),
    "correct": P(None, DATA_AXIS),
    "difference": P(None, DATA_AXIS),
}


def on_mesh(step: Step, mesh: Mesh, results: Mapping[str, P]) -> Step:
    """Lets every device of the data axis run a step on its own images.

    Args:
        step: Of one device.
        mesh: The devices.
        results: How each result lies over them.

    Returns:
        The jitted step of a batch of all devices.
    """
    return jax.jit(
        jax.shard_map(
            step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=dict(results), check_vma=False
        )
    )


def make_feature_step(embed: Embed, preprocess: Augmentation, mesh: Mesh) -> Step:
    """Makes the program that looks at images as they are.

    Args:
        embed: From `features.make_embed`.
        preprocess: Canvas to image, without randomness.
        mesh: The devices.

    Returns:
        `step(variables, batch)`, batch as `data.Batch`. The result holds "features", float32
        [batch, length]; "prediction", int32 [batch]; "correct", bool [batch].
    """

    def step(variables: Any, batch: Batch) -> dict[str, Array]:
        vectors, logits = embed(variables, normalize(prepare(preprocess, batch)))
        return {
            "features": vectors,
            "prediction": jnp.argmax(logits, axis=-1).astype(jnp.int32),
            "correct": measures.is_correct(logits, batch["label"]),
        }

    return on_mesh(step, mesh, _FEATURE_RESULTS)


def make_grid_step(
    embed: Embed,
    preprocess: Augmentation,
    transforms: Mapping[str, Transform],
    domain: Domain,
    translation: Translation,
    cells: Cells,
    layout: Layout,
    *,
    cells_at_once: int,
    equivariance: bool,
) -> Step:
    """Makes one device's program that measures its images at every cell.

    Args:
        embed: From `features.make_embed`.
        preprocess: Canvas to image, without randomness.
        transforms: The table.
        domain: Whether the transforms act on "pixel" or on "normalized" values.
        translation: What translations show where the image has left.
        cells: Which cells are computed.
        layout: Where each feature lies in the vectors.
        cells_at_once: Cells that one forward pass takes.
        equivariance: Whether to give out the differences z - z_t too.

    Returns:
        `step(variables, batch)`; beside what `data.Batch` has, the batch holds "features",
        "prediction" and "correct" of the images as they are, and "features_other", of the images
        whose baseline uses them. The result holds "transformed" and "baseline", float32 [cell,
        feature, distance, batch]; "baseline_unchanged", the baseline where the transform changes
        nothing, [feature, distance, batch]; "flip" and "correct", bool [cell, batch]; with
        equivariance "difference", float32 [cell, batch, length].
    """
    # The magnitude is not mapped over: what depends on it alone (weights, indices) is computed
    # once and shared by the batch.
    branches = [
        jax.vmap(
            make_show(each, domain=domain, translation=translation, preprocess=preprocess),
            (0, None),
        )
        for each in transforms.values()
    ]
    padded = -(-len(cells) // cells_at_once) * cells_at_once
    # The last pass is filled up with its last cell again.
    chosen = jnp.minimum(jnp.arange(padded), len(cells) - 1).reshape(-1, cells_at_once)
    passes = (jnp.asarray(cells.transform)[chosen], jnp.asarray(cells.magnitude)[chosen])

    def step(variables: Any, batch: Batch) -> dict[str, Array]:
        images = prepare(preprocess, batch)
        sources = Source(batch["canvas"], batch["height"], batch["width"], images)
        as_they_are = normalize(images)[None]
        z, z_other = batch["features"], batch["features_other"]

        def show(cell: tuple[Array, Array]) -> Array:
            index, magnitude = cell
            return jax.lax.switch(index, branches, sources, magnitude)

        def one_pass(_: None, cells_of_pass: tuple[Array, Array]) -> tuple[None, dict[str, Array]]:
            shown = jax.lax.map(show, cells_of_pass)
            # A transform may leave an image as it is, as solarize does one without bright pixels.
            # It then has its own features: computed again, they would be rounded otherwise, and a
            # difference of rounding errors has a direction that means nothing.
            changed = jnp.max(jnp.abs(shown - as_they_are), axis=(2, 3, 4)) > _UNCHANGED
            vectors, logits = embed(variables, shown.reshape(-1, *images.shape[1:]))
            z_transformed = jnp.where(
                changed[..., None], vectors.reshape(cells_at_once, *z.shape), z[None]
            )
            logits = logits.reshape(cells_at_once, z.shape[0], -1)
            correct = measures.is_correct(
                logits, jnp.broadcast_to(batch["label"], logits.shape[:2])
            )
            found = {
                "transformed": _distances(layout, z[None], z_transformed),
                "baseline": _distances(layout, z_other[None], z_transformed),
                "flip": changed & measures.prediction_flip(batch["prediction"][None], logits),
                "correct": jnp.where(changed, correct, batch["correct"][None]),
            }
            if equivariance:
                found["difference"] = z[None] - z_transformed
            return None, found

        # The scan compiles the network once for all cells.
        _, found = jax.lax.scan(one_pass, None, passes)
        flat = {key: x.reshape(-1, *x.shape[2:])[: len(cells)] for key, x in found.items()}
        return flat | {"baseline_unchanged": _distances(layout, z_other[None], z[None])[0]}

    return step


def grid_on_mesh(step: Step, mesh: Mesh, *, equivariance: bool) -> Step:
    """Lets every device run the grid on its own images.

    Args:
        step: From `make_grid_step`.
        mesh: The devices.
        equivariance: As given there.

    Returns:
        The jitted step of a batch of all devices.
    """
    names = [name for name in _GRID_RESULTS if equivariance or name != "difference"]
    return on_mesh(step, mesh, {name: _GRID_RESULTS[name] for name in names})


def _distances(
    layout: Layout, a: Float[Array, "#cell batch length"], b: Float[Array, "cell batch length"]
) -> Float[Array, "cell feature distance batch"]:
    """Every distance of every feature."""
    found = [
        jnp.stack(
            [measures.distance(kind, a[..., part], b[..., part]) for kind in measures.DISTANCES], 1
        )
        for part in layout.slices
    ]
    return jnp.stack(found, axis=1)
