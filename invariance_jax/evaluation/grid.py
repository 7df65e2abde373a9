"""Embeddings over the whole grid of transforms and magnitudes, reduced to distances at once.

The embeddings of N images at 13 x 10 cells would not fit in memory for long, their distances
do. So z, the embedding of each image as it is, is computed first for all images. The second pass
transforms image j, and needs z[j] for the distance to itself and z[i] of the one image i whose
baseline uses j: pi(i) = j.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from invariance_jax import devices
from invariance_jax.augment import Augmentation
from invariance_jax.evaluation import measures
from invariance_jax.evaluation.accuracy import prepare
from invariance_jax.transforms import Domain, Transform, in_domain, normalize

Batch = Mapping[str, Array]
Embed = Callable[[Any, Float[Array, "batch height width 3"]], Float[Array, "batch features"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridDistances:
    """Distances of every image at every cell of the grid, float32.

    Attributes:
        transformed: By distance, [transform, magnitude, image]: d(z_i, z_t,i).
        baseline: By distance, the same shape: d(z_i, z_t,pi(i)).
        permutation: pi, [image].
    """

    transformed: dict[str, np.ndarray]
    baseline: dict[str, np.ndarray]
    permutation: np.ndarray


def make_embed(model: nn.Module) -> Embed:
    """Makes the function from images to embeddings.

    Args:
        model: The network.

    Returns:
        `embed(variables, images)`, images float32, normalised.
    """

    def embed(variables: Any, images: Array) -> Array:
        _, features = model.apply(variables, images, train=False)
        return features["embedding"]

    return embed


def make_grid_step(
    embed: Embed, preprocess: Augmentation, transforms: Mapping[str, Transform], domain: Domain
) -> Callable[..., dict[str, dict[str, Array]]]:
    """Makes the function that measures one batch of images at every cell; one program.

    Args:
        embed: Normalised images to embeddings.
        preprocess: Canvas to image, without randomness.
        transforms: The table; every transform has as many magnitudes.
        domain: Whether the transforms act on "pixel" or on "normalized" values.

    Returns:
        `step(variables, batch, z, z_other)`: z embeds the batch's images, z_other the images
        whose baseline uses them. The result holds "transformed" and "baseline", each by
        distance, float32 [transform, magnitude, batch].
    """
    table = tuple(transforms.values())
    magnitudes = jnp.asarray([t.magnitudes for t in table], jnp.float32)
    # An identity magnitude is one on pixels; on normalised values it may clip.
    is_identity = jnp.asarray(
        [[domain == "pixel" and m == t.identity for m in t.magnitudes] for t in table]
    )
    # Images in the middle, so that what depends on the magnitude alone (weights, indices) is
    # computed once and shared by the batch.
    branches = [jax.vmap(jax.vmap(in_domain(t, domain), (0, None)), (None, 0)) for t in table]

    def step(variables: Any, batch: Batch, z: Array, z_other: Array) -> dict[str, dict[str, Array]]:
        images = prepare(preprocess, batch)

        def one_transform(_: None, cell: tuple[Array, Array, Array]) -> tuple[None, Any]:
            index, values, unchanged = cell
            shown = jax.lax.switch(index, branches, images, values)
            flat = shown.reshape(-1, *images.shape[1:])
            z_transformed = embed(variables, flat).reshape(*shown.shape[:2], -1)
            # Another batch shape rounds otherwise; an unchanged image has its own embedding.
            z_transformed = jnp.where(unchanged[:, None, None], z[None], z_transformed)
            return None, {
                name: {
                    kind: measures.distance(kind, reference[None], z_transformed)
                    for kind in measures.DISTANCES
                }
                for name, reference in (("transformed", z), ("baseline", z_other))
            }

        # The scan compiles the model once for all transforms.
        cells = (jnp.arange(len(table)), magnitudes, is_identity)
        _, distances = jax.lax.scan(one_transform, None, cells)
        return distances

    return step


def measure(
    model: nn.Module,
    variables: Any,
    preprocess: Augmentation,
    transforms: Mapping[str, Transform],
    domain: Domain,
    make_batches: Callable[[], Iterable[Batch]],
    *,
    images: int,
    seed: int,
    mesh: Mesh,
    progress: Callable[[int], object],
) -> GridDistances:
    """Measures a model on every image, transform and magnitude.

    Args:
        model: The network.
        variables: Its parameters and batch statistics.
        preprocess: Canvas to image, without randomness; `none` as a rule.
        transforms: The table of transforms.
        domain: Whether they act on "pixel" or, as in the original, on "normalized" values. The
            images as they are, are the same in both.
        make_batches: Gives the images' batches on the devices, in order; called twice.
        images: How many images there are.
        seed: Of the permutation behind the baseline.
        mesh: The devices.
        progress: Called with the number of images just done.

    Returns:
        The distances.
    """
    whole, split = devices.replicated(mesh), devices.by_example(mesh)
    embed = make_embed(model)
    embed_batch = jax.jit(
        lambda variables, batch: embed(variables, normalize(prepare(preprocess, batch))),
        in_shardings=(whole, split),
        out_shardings=whole,
    )
    grid_step = jax.jit(
        make_grid_step(embed, preprocess, transforms, domain),
        in_shardings=(whole, split, split, split),
        out_shardings=whole,
    )

    z = np.concatenate([np.asarray(embed_batch(variables, b)) for b in make_batches()])[:images]
    permutation = np.random.default_rng(seed).permutation(images)
    user_of = np.argsort(permutation)  # the image whose baseline uses image j

    shape = (len(transforms), len(next(iter(transforms.values())).magnitudes), images)
    out = {
        name: {kind: np.zeros(shape, np.float32) for kind in measures.DISTANCES}
        for name in ("transformed", "baseline")
    }
    put = partial(jax.device_put, device=split)
    done = 0
    for batch in make_batches():
        size = batch["index"].shape[0]
        # Padding repeats the last image; its results are cut off below.
        rows = np.minimum(np.arange(done, done + size), images - 1)
        distances = jax.device_get(grid_step(variables, batch, put(z[rows]), put(z[user_of[rows]])))
        count = min(size, images - done)
        for kind in measures.DISTANCES:
            own = distances["transformed"][kind][..., :count]
            other = distances["baseline"][kind][..., :count]
            out["transformed"][kind][..., rows[:count]] = own
            out["baseline"][kind][..., user_of[rows[:count]]] = other
        done += count
        progress(count)
    return GridDistances(permutation=permutation, **out)
