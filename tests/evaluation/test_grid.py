"""The grid against a plain loop, and its independence of batches, shards and devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.evaluation import measures
from invariance_jax.transforms import TRANSFORMS, Transform, normalize

from .conftest import IMAGES, Coloured, Linear, Mean, pixels_of, run_measure


def on_pixels(transform, image, magnitude):
    return normalize(transform.apply(image, magnitude))


def on_normalized(transform, image, magnitude):
    return transform.apply_normalized(normalize(image), magnitude)


@pytest.mark.parametrize(("domain", "show"), [("pixel", on_pixels), ("normalized", on_normalized)])
def test_equals_a_plain_loop(measure, source, variables, domain, show):
    found = measure(domain=domain, features=("layer",), shard_size=6, equivariance=True)
    images = pixels_of(source)
    label = np.array([source[i]["label"] for i in range(IMAGES)])

    @jax.jit
    def embed(image):
        logits, features = Linear().apply(variables, image[None])
        return features["embedding"][0], features["layer"][0].mean((0, 1)), logits[0]

    z = [jnp.stack(each) for each in zip(*(embed(normalize(x)) for x in images), strict=True)]
    permutation = np.random.default_rng(3).permutation(IMAGES)
    np.testing.assert_array_equal(found.permutation, permutation)
    np.testing.assert_array_equal(found.label, label)
    np.testing.assert_array_equal(found.prediction, np.argmax(z[2], axis=1))
    assert found.names == tuple(source[i]["name"] for i in range(IMAGES))
    flips = aligned = 0
    for t, transform in enumerate(TRANSFORMS.values()):
        for m in (0, 1, 6, 9):
            magnitude = jnp.float32(transform.magnitudes[m])
            z_t = [
                jnp.stack(each)
                for each in zip(
                    *(embed(show(transform, image, magnitude)) for image in images), strict=True
                )
            ]
            where = f"{transform.name} {m}"
            for f, feature in enumerate(("embedding", "layer")):
                for kind in measures.DISTANCES:
                    np.testing.assert_allclose(
                        found.transformed[feature][kind][t, m],
                        measures.distance(kind, z[f], z_t[f]),
                        atol=2e-5,
                        err_msg=where,
                    )
                    np.testing.assert_allclose(
                        found.baseline[feature][kind][t, m],
                        measures.distance(kind, z[f], z_t[f][permutation]),
                        atol=2e-5,
                        err_msg=where,
                    )
                # What hardly moves has no direction that two programs would agree on.
                moved = z[f] - z_t[f]
                if np.linalg.norm(moved, axis=1).min() > 1e-2:
                    np.testing.assert_allclose(
                        found.alignment[feature][t, m],
                        alignment_by_loop(np.asarray(moved), permutation),
                        atol=1e-3,
                        err_msg=where,
                    )
                    aligned += 1
            predicted = np.argmax(z_t[2], axis=1)
            np.testing.assert_array_equal(found.flip[t, m], predicted != found.prediction, where)
            second, first = np.sort(z_t[2], axis=1)[:, -2:].T
            right = (predicted == label) & (first > second)  # ties count against the model
            np.testing.assert_array_equal(found.correct[t, m], right, where)
            flips += np.sum(found.flip[t, m])
    assert 0 < flips < 13 * 4 * IMAGES and aligned > 10


def alignment_by_loop(moved, permutation):
    """The paper's alignment, one image after another."""
    shuffled = np.random.default_rng((3, 1)).permuted(moved, axis=0)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(moved, axis=0))

    def cosine(a, b):
        return 1 - np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)

    return [
        cosine(shuffled[i], shuffled[j]) - cosine(moved[i], moved[j])
        for i, j in enumerate(permutation)
    ]


@pytest.fixture(scope="module")
def batches_of_four(source, variables, tmp_path_factory):
    """What one device finds in batches of four images."""
    return run_measure(
        source, variables, tmp_path_factory.mktemp("four"), features=("layer",), equivariance=True
    )


@pytest.mark.parametrize(
    ("grid_batch_size", "shard_size", "count"),
    [(11, 100, 1), (40, 100, 1), (4, 3, 1), (4, 100, 8), (1, 6, 8)],
)
def test_independent_of_batches_shards_and_devices(
    measure, batches_of_four, grid_batch_size, shard_size, count
):
    found = measure(
        features=("layer",),
        equivariance=True,
        grid_batch_size=grid_batch_size,
        shard_size=shard_size,
        count=count,
    )
    assert_same(found, batches_of_four)


def assert_same(found, expected):
    for feature in expected.transformed:
        for kind in measures.DISTANCES:
            for name in ("transformed", "baseline"):
                np.testing.assert_allclose(
                    getattr(found, name)[feature][kind],
                    getattr(expected, name)[feature][kind],
                    atol=1e-5,
                )
        np.testing.assert_allclose(found.alignment[feature], expected.alignment[feature], atol=1e-4)
    for name in ("flip", "correct", "label", "prediction", "names", "permutation"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_bfloat16_is_close_and_results_are_float32(measure, batches_of_four):
    """Real networks compute in bfloat16 what they give out as float32; so does this one."""
    options = {"features": ("layer",), "equivariance": True}
    found = measure(Linear(jnp.bfloat16), **options)
    for feature, expected in batches_of_four.transformed.items():
        for kind in measures.DISTANCES:
            for ours, theirs in (
                (found.transformed[feature][kind], expected[kind]),
                (found.baseline[feature][kind], batches_of_four.baseline[feature][kind]),
            ):
                assert ours.dtype == np.float32
                # 8 bits, so 1 in 256; a distance is a difference of such numbers.
                error = np.abs(ours - theirs)
                assert 1e-5 < error.max() < 0.05 * theirs.max(), (feature, kind)
    agreed = found.prediction == batches_of_four.prediction
    assert np.mean(agreed) > 0.8
    low = measure(Linear(jnp.bfloat16), grid_batch_size=11, **options)
    for kind in measures.DISTANCES:
        np.testing.assert_allclose(
            low.transformed["embedding"][kind], found.transformed["embedding"][kind], atol=0.02
        )


def test_identity_cells_have_no_distance(measure):
    found = measure()
    identities = [t.magnitudes[0] == t.identity for t in TRANSFORMS.values()]
    assert sum(identities) == 12  # solarize at 1 is none
    for kind in measures.DISTANCES:
        np.testing.assert_array_equal(found.transformed["embedding"][kind][identities, 0], 0)
    assert not found.flip[identities, 0].any()


def test_normalized_identities_are_computed_and_change_what_they_clip(measure):
    found = measure(domain="normalized")
    changed = found.transformed["embedding"]["euclidean"][:, 0].min(axis=1) > 1e-3
    names = [name for name, is_changed in zip(TRANSFORMS, changed, strict=True) if is_changed]
    assert names == [
        *("posterize", "decrease_contrast", "increase_contrast", "solarize"),
        *("decrease_brightness", "increase_brightness"),
    ]


def test_an_unknown_domain_is_named(measure):
    with pytest.raises(UserError, match="unknown domain 'pixels'"):
        measure(domain="pixels")


def test_an_unknown_feature_is_named(measure):
    with pytest.raises(
        UserError, match=r"config\.eval\.features: unknown feature 'layre'; did you"
    ):
        measure(features=("layre",))


def test_a_blind_model_is_invariant_to_what_it_cannot_see(measure):
    # Cyclic translation keeps every mean.
    roll = Transform(
        name="roll",
        function=lambda image, magnitude: jnp.roll(image, magnitude.astype(jnp.int32), axis=1),
        magnitudes=tuple(float(shift) for shift in range(10)),
        limits=(0.0, 9.0),
        identity=0.0,
        unit="pixels",
        family="geometric",
    )
    found = measure(Mean(), model_variables={}, transforms={"roll": roll}, images=Coloured(IMAGES))
    moved = np.flatnonzero(found.permutation != np.arange(IMAGES))
    assert len(moved) > IMAGES / 2
    for kind in measures.DISTANCES:
        invariance = measures.relative_invariance(
            found.baseline["embedding"][kind], found.transformed["embedding"][kind]
        )
        np.testing.assert_allclose(invariance[0][:, moved], 1, atol=1e-5, err_msg=kind)


def test_a_network_that_keeps_nothing_is_no_nearer_than_chance(measure):
    class Chaos(Linear):
        @nn.compact
        def __call__(self, images, train=False):
            logits, features = super().__call__(images)
            # The smallest change of an image changes all.
            return logits, features | {"embedding": jnp.sin(1e4 * nn.Dense(64)(features["layer"]))}

    images = 64
    variables = jax.device_get(Chaos().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    found = measure(
        Chaos(),
        model_variables=variables,
        images=Coloured(images),
        transforms={"rotate": TRANSFORMS["rotate"]},
        grid_batch_size=images,
    )
    invariance = measures.relative_invariance(
        found.baseline["embedding"]["cosine"], found.transformed["embedding"]["cosine"]
    )[0, 1:]
    standard_error = 1.2533 * np.std(invariance) / np.sqrt(invariance.size)
    assert abs(np.median(invariance)) < 3 * standard_error < 0.1


@pytest.mark.parametrize(("images", "grid_batch_size"), [(12, 4), (6, 12)])
def test_one_forward_pass_a_cell_and_one_trace_of_the_network(measure, images, grid_batch_size):
    traced, seen = [], []

    class Counted(Linear):
        @nn.compact
        def __call__(self, images, train=False):
            traced.append(images.shape[0])
            jax.debug.callback(lambda: seen.append(images.shape[0]))
            return super().__call__(images, train)

    measure(Counted(), images=Coloured(images), grid_batch_size=grid_batch_size)
    jax.effects_barrier()
    # For the shapes, for the images as they are, and for the whole grid.
    assert traced == [1, min(images, grid_batch_size), grid_batch_size]
    assert sum(seen) == images + (13 * 10 - 12) * images
