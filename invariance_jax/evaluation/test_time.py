"""Accuracy image by image, under every way in which test images can be cropped (paper, section 2).

The paper tests a model on the centre crop that it knows, on random resized crops, and on centred
crops of ever smaller area: which of them it survives says what its training made it used to.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from jaxtyping import Array

from invariance_jax import devices
from invariance_jax.augment import Augmentation
from invariance_jax.evaluation import collect
from invariance_jax.evaluation.accuracy import to_bytes
from invariance_jax.evaluation.measures import rank_of_label
from invariance_jax.transforms import normalize

Batch = Mapping[str, Array]


def make_step(model: nn.Module, mesh: Mesh) -> Callable[..., dict[str, Any]]:
    """Makes the jitted function that classifies one batch of images under one variant.

    Args:
        model: The network.
        mesh: The devices.

    Returns:
        `step(variables, augmentation, key, batch)` as `collect.per_image` takes it. The
        augmentation's numbers are arguments, so variants of one structure share a program. What an
        image gets is drawn from the key and the image's index alone. "values" holds
        `correct_top1` and `correct_top5` (int8), `predicted` (int32) and `probability` (float32,
        that of the true class), [batch] each.
    """

    def step(
        variables: Any, augmentation: Augmentation, key: Array, batch: Batch
    ) -> dict[str, Any]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        images = jax.vmap(augmentation)(keys, batch["canvas"], batch["height"], batch["width"])
        logits, _ = model.apply(variables, normalize(to_bytes(images)), train=False)
        rank = rank_of_label(logits, batch["label"])
        probabilities = jax.nn.softmax(logits)
        found = {
            "correct_top1": (rank < 1).astype(jnp.int8),
            "correct_top5": (rank < 5).astype(jnp.int8),
            "predicted": jnp.argmax(logits, axis=1).astype(jnp.int32),
            "probability": jnp.take_along_axis(probabilities, batch["label"][:, None], 1)[:, 0],
        }
        return {"index": batch["index"], "mask": batch["mask"], "values": found}

    whole = devices.replicated(mesh)
    shardings = (whole, whole, whole, devices.by_example(mesh))
    return jax.jit(step, in_shardings=shardings, out_shardings=whole)


def measure(
    model: nn.Module,
    variables: Any,
    variants: Mapping[str, Augmentation],
    batches: Iterable[Batch],
    *,
    names: Sequence[str],
    labels: Sequence[int],
    seed: int,
    mesh: Mesh,
    progress: Callable[[int], object],
) -> xr.Dataset:
    """Classifies every image under every variant; images are read once.

    Args:
        model: The network.
        variables: Its parameters and batch statistics.
        variants: Test-time augmentations by name.
        batches: The split's batches on the devices.
        names: Each image's id.
        labels: Each image's class.
        seed: Of the random crops; the same draws serve every variant.
        mesh: The devices.
        progress: Called with the number of images just done.

    Returns:
        The arrays of `make_step`, dims (variant, image), with coordinates `variant`, `image` and
        `label`. An accuracy is the mean of `correct_top1` or `correct_top5`.
    """
    step, key = make_step(model, mesh), jax.random.key(seed)

    def run(batch: Batch) -> dict[str, Any]:
        results = {name: step(variables, each, key, batch) for name, each in variants.items()}
        values = {name: result["values"] for name, result in results.items()}
        return {**next(iter(results.values())), "values": values}

    found = collect.per_image(run, batches, images=len(names), progress=progress)
    first = next(iter(found.values()))
    return xr.Dataset(
        {
            field: (("variant", "image"), np.stack([found[name][field] for name in variants]))
            for field in first
        },
        coords={
            "variant": list(variants),
            "image": list(names),
            "label": ("image", np.asarray(labels, np.int32)),
        },
    )


def by_class(dataset: xr.Dataset) -> str:
    """Tables the accuracy of every class.

    Args:
        dataset: What `measure` returned.

    Returns:
        CSV text: variant, label, images, top1, top5; the accuracies 0 to 1. Classes without an
        image have no row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("variant", "label", "images", "top1", "top5"))
    labels, label_of, counts = np.unique(
        dataset["label"].values, return_inverse=True, return_counts=True
    )
    for variant in dataset["variant"].values:
        shown = dataset.sel(variant=variant)
        top1, top5 = (
            np.bincount(label_of, shown[field].values, len(labels)) / counts
            for field in ("correct_top1", "correct_top5")
        )
        for row in zip(labels, counts, top1, top5, strict=True):
            writer.writerow((variant, row[0], row[1], f"{row[2]:.6f}", f"{row[3]:.6f}"))
    return text.getvalue()
