"""The whole grid on real photos against a plain loop over the transforms."""

import functools
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment, data, devices, models
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.evaluation.measurement import prepare
from invariance_jax.transforms import TRANSFORMS, normalize

NETWORK = "resnet8"  # at 224 pixels, of little depth: what is tested is the grid
SIDE, CANVAS = 224, 512
PREPROCESS = augment.get("none", size=SIDE, resize=256)


class Photos:
    """ImageNet's first validation images, from ImageNet's own archive."""

    name, split, num_classes, class_names = "photos", "validation", 1000, ("?",) * 1000
    has_labels = True

    def __init__(self, folder, images):
        with tarfile.open(folder / "ilsvrc2012-sample" / "ILSVRC2012_img_val.tar") as archive:
            self._names = sorted(archive.getnames())[:images]
            self._files = [archive.extractfile(name).read() for name in self._names]

    def __len__(self):
        return len(self._names)

    def __getitem__(self, index):
        return {"image": self._files[index], "label": 0, "name": self._names[index]}

    def names(self):
        return self._names

    def labels(self):
        return np.zeros(len(self), np.int32)


def largest_difference(folder, weights, images):
    """Largest relative difference of any distance from a loop that knows nothing of the grid."""
    source = Photos(folder, images)
    network = models.create(NETWORK)
    variables = models.import_weights(NETWORK, weights)
    model = models.from_flax(network, variables, name=NETWORK, image_size=SIDE)
    driver = Driver(
        model=model,
        measurements=[Invariance(preprocess=PREPROCESS, seed=3)],
        source=source,
        preprocess=PREPROCESS,
        canvas_size=CANVAS,
        workers=0,
        mesh=devices.make_mesh(1),
        per_device_batch_size=16,
        memory=2**32,
        shard_size=100,
        description="photos",
    )
    ((measurement, arrays),) = driver.run()
    found = measurement.datasets(arrays, driver.images)[""]
    permutation = found.permutation.values

    @jax.jit
    def embed(images):
        return network.apply(variables, normalize(images), train=False)[1]["embedding"]

    (batch,) = data.batches_at(source, np.arange(images)[None], canvas_size=CANVAS)
    pixels = jax.jit(functools.partial(prepare, PREPROCESS))(batch)
    z = np.asarray(embed(pixels), np.float64)

    def cosine(a, b):
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return 1 - np.sum(a * b, axis=1) / lengths

    def euclidean(a, b):
        return np.linalg.norm(a - b, axis=1)

    worst = 0.0
    for t, transform in enumerate(TRANSFORMS.values()):
        apply = jax.jit(jax.vmap(transform.apply, (0, None)))
        for m, magnitude in enumerate(transform.magnitudes):
            z_t = np.asarray(embed(apply(pixels, jnp.float32(magnitude))), np.float64)
            for kind, distance in (("cosine", cosine), ("euclidean", euclidean)):
                # A millionth of what lies between images is nothing: rounding of z itself.
                least = 1e-3 * np.mean(distance(z, np.roll(z, 1, axis=0)))
                for name, other in (("transformed", z_t), ("baseline", z_t[permutation])):
                    expected = distance(z, other)
                    ours = found[f"{name}_{kind}"].values[t, m]
                    difference = np.max(np.abs(ours - expected) / np.maximum(expected, least))
                    if difference > worst:
                        worst = float(difference)
                        print(f"{transform.name} {m} {kind} {name}: {worst:.1e}")
    return worst


@pytest.mark.real_data
def test_every_distance_is_that_of_a_plain_loop(real_data, draw_weights):
    weights = draw_weights(models.weight_shapes(NETWORK))
    assert largest_difference(real_data, weights, images=4) < 1e-3
