"""The grid against a plain loop, and its independence of batches and devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment, data, devices
from invariance_jax.errors import UserError
from invariance_jax.evaluation import grid, measures
from invariance_jax.transforms import TRANSFORMS, Transform, normalize

IMAGES = 11
NONE = augment.get("none", size=8, resize=8)


class Linear(nn.Module):
    """The smallest model with an embedding."""

    @nn.compact
    def __call__(self, images, train=False):
        embedding = nn.Dense(6)(jnp.tanh(images.reshape(images.shape[0], -1)))
        return embedding, {"embedding": embedding}


class Mean(nn.Module):
    """Blind to where things are."""

    def __call__(self, images, train=False):
        embedding = images.mean((1, 2))
        return embedding, {"embedding": embedding}


@pytest.fixture(scope="module")
def source():
    return data.load_source("digits", f"validation[:{IMAGES}]")


@pytest.fixture(scope="module")
def variables():
    return Linear().init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))


def measure(
    model,
    variables,
    source,
    *,
    batch_size=4,
    count=1,
    transforms=TRANSFORMS,
    domain="pixel",
    seed=3,
):
    mesh = devices.make_mesh(count)

    def batches():
        return data.prefetch_to_device(
            data.evaluation_batches(source, batch_size=batch_size, canvas_size=8),
            devices.by_example(mesh),
        )

    done = []
    distances = grid.measure(
        model,
        variables,
        NONE,
        transforms,
        domain,
        batches,
        images=len(source),
        seed=seed,
        mesh=mesh,
        progress=done.append,
    )
    assert sum(done) == len(source)
    return distances


def on_pixels(transform, image, magnitude):
    return normalize(transform.apply(image, magnitude))


def on_normalized(transform, image, magnitude):
    return transform.apply_normalized(normalize(image), magnitude)


@pytest.mark.parametrize(("domain", "show"), [("pixel", on_pixels), ("normalized", on_normalized)])
def test_equals_a_plain_loop(source, variables, domain, show):
    distances = measure(Linear(), variables, source, domain=domain)
    pixels = [data.to_canvas(source[i]["image"], 8)[0] for i in range(IMAGES)]
    images = [jnp.asarray(each, jnp.float32) / 255 for each in pixels]

    @jax.jit
    def embed(image):
        return Linear().apply(variables, image[None])[0][0]

    z = jnp.stack([embed(normalize(image)) for image in images])
    permutation = np.random.default_rng(3).permutation(IMAGES)
    np.testing.assert_array_equal(distances.permutation, permutation)
    for t, transform in enumerate(TRANSFORMS.values()):
        for m in (0, 1, 6, 9):
            magnitude = jnp.float32(transform.magnitudes[m])
            z_t = jnp.stack([embed(show(transform, image, magnitude)) for image in images])
            for kind in measures.DISTANCES:
                np.testing.assert_allclose(
                    distances.transformed[kind][t, m],
                    measures.distance(kind, z, z_t),
                    atol=2e-5,
                    err_msg=f"{transform.name} {m} {kind}",
                )
                np.testing.assert_allclose(
                    distances.baseline[kind][t, m],
                    measures.distance(kind, z, z_t[permutation]),
                    atol=2e-5,
                    err_msg=f"{transform.name} {m} {kind}",
                )


@pytest.mark.parametrize(("batch_size", "count"), [(11, 1), (8, 8), (16, 8)])
def test_independent_of_batch_size_and_devices(source, variables, batch_size, count):
    expected = measure(Linear(), variables, source)
    found = measure(Linear(), variables, source, batch_size=batch_size, count=count)
    for name in ("transformed", "baseline"):
        for kind in measures.DISTANCES:
            np.testing.assert_allclose(
                getattr(found, name)[kind], getattr(expected, name)[kind], atol=1e-5
            )


def test_identity_cells_have_no_distance(source, variables):
    distances = measure(Linear(), variables, source)
    identities = [t.magnitudes[0] == t.identity for t in TRANSFORMS.values()]
    assert sum(identities) == 12  # solarize at 1 is none
    np.testing.assert_array_equal(distances.transformed["euclidean"][identities, 0], 0)


def test_normalized_identities_are_computed_and_change_what_they_clip(source, variables):
    distances = measure(Linear(), variables, source, domain="normalized")
    changed = distances.transformed["euclidean"][:, 0].min(axis=1) > 1e-3
    names = [name for name, is_changed in zip(TRANSFORMS, changed, strict=True) if is_changed]
    assert names == [
        *("posterize", "decrease_contrast", "increase_contrast", "solarize"),
        *("decrease_brightness", "increase_brightness"),
    ]


def test_an_unknown_domain_is_named(source, variables):
    with pytest.raises(UserError, match="unknown domain 'pixels'"):
        measure(Linear(), variables, source, domain="pixels")


def test_a_blind_model_is_invariant_to_what_it_cannot_see(source):
    # Cyclic translation keeps every mean.
    roll = Transform(
        name="roll",
        function=lambda image, magnitude: jnp.roll(image, magnitude.astype(jnp.int32), axis=1),
        magnitudes=tuple(float(shift) for shift in range(10)),
        identity=0.0,
        unit="pixels",
        family="geometric",
    )
    distances = measure(Mean(), {}, source, transforms={"roll": roll})
    invariance = measures.relative_invariance(
        distances.baseline["euclidean"], distances.transformed["euclidean"]
    )
    moved = np.flatnonzero(distances.permutation != np.arange(IMAGES))
    np.testing.assert_allclose(invariance[0][:, moved], 1, atol=1e-5)


def test_the_model_is_traced_once_for_the_whole_grid(source, variables):
    traces = []

    class Counted(Linear):
        @nn.compact
        def __call__(self, images, train=False):
            traces.append(images.shape)
            return super().__call__(images, train)

    measure(Counted(), variables, source)
    # Once for the images as they are, once for all transforms (a scan traces its body once).
    assert len(traces) == 2, traces
