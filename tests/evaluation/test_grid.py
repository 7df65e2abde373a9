"""The grid against a plain loop, and its independence of batches, shards and devices."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import data, models
from invariance_jax.errors import UserError
from invariance_jax.evaluation import driver, measurement, metrics, walk
from invariance_jax.transforms import TRANSFORMS, Transform, normalize

from .conftest import (
    IMAGES,
    MEAN,
    SEED,
    SIDE,
    Linear,
    assert_same,
    coloured,
    coloured_pixels,
    counted,
    few,
    grid,
    linear,
    make_driver,
    measured,
    measured_one,
    pixels_of,
)

# Matrices of weights, gathers, and rules for each pixel.
EACH_KIND = few("translate_x", "rotate", "posterize")
WITH_FEATURES = {"features": ("layer",), "equivariance": True}


@pytest.fixture(scope="module")
def whole(digits, model, tmp_path_factory):
    """The whole table, in batches of four images and shards of three, through files."""
    folder = tmp_path_factory.mktemp("whole")
    found = measured([grid(**WITH_FEATURES)], digits, model, folder=folder, shard_size=3)
    return found["invariance"]


@pytest.fixture(scope="module")
def whole_normalized(digits, model):
    """The same on normalised values: all images at once at several points, and in memory."""
    measurement = grid(domain="normalized", **WITH_FEATURES)
    return measured([measurement], digits, model, per_device_batch_size=40)["invariance"]


def on_pixels(transform, image, magnitude):
    return normalize(transform.apply(image, magnitude))


def on_normalized(transform, image, magnitude):
    return transform.apply_normalized(normalize(image), magnitude)


@pytest.mark.parametrize(
    ("results", "show"), [("whole", on_pixels), ("whole_normalized", on_normalized)]
)
def test_equals_a_plain_loop(request, results, show, digits, model):
    found = request.getfixturevalue(results)
    main, features = found[""], found["features"]
    images, label = pixels_of(digits), digits.labels()

    @jax.jit
    def embed(image):
        logits, features = Linear().apply(model.variables, image[None])
        return features["embedding"][0], features["layer"][0].mean((0, 1)), logits[0]

    @jax.jit
    def transformed(image, magnitudes):
        return jnp.stack(
            [show(each, image, m) for each, m in zip(TRANSFORMS.values(), magnitudes, strict=True)]
        )

    z = [np.stack(each) for each in zip(*(embed(normalize(x)) for x in images), strict=True)]
    permutation = walk.pairing(IMAGES, SEED)
    np.testing.assert_array_equal(main.permutation, permutation)
    np.testing.assert_array_equal(main.label, label)
    np.testing.assert_array_equal(main.prediction, np.argmax(z[2], axis=1))
    assert list(main.image.values) == digits.names() and list(main["transform"]) == list(TRANSFORMS)
    flips = aligned = 0
    for m in (0, 1, 6, 9):
        magnitudes = jnp.asarray([each.magnitudes[m] for each in TRANSFORMS.values()], jnp.float32)
        shown = [transformed(image, magnitudes) for image in images]
        for t, name in enumerate(TRANSFORMS):
            z_t = [
                np.stack(each) for each in zip(*(embed(image[t]) for image in shown), strict=True)
            ]
            at = {"transform": name, "magnitude": m}
            for f, feature in enumerate(("embedding", "layer")):
                of_feature = features.sel(at | {"feature": feature})
                for kind in metrics.DISTANCES:
                    for variable, other in (
                        ("transformed", z_t[f]),
                        ("baseline", z_t[f][permutation]),
                    ):
                        np.testing.assert_allclose(
                            of_feature[f"{variable}_{kind}"],
                            metrics.distance(kind, z[f], other),
                            atol=2e-5,
                            err_msg=f"{variable} {at}",
                        )
                # What hardly moves has no direction that two programs would agree on.
                moved = z[f] - z_t[f]
                if np.linalg.norm(moved, axis=1).min() > 1e-2:
                    np.testing.assert_allclose(
                        of_feature.equivariance_alignment,
                        alignment_by_loop(moved, permutation),
                        atol=1e-3,
                        err_msg=str(at),
                    )
                    aligned += 1
            here = main.sel(at)
            predicted = np.argmax(z_t[2], axis=1)
            np.testing.assert_array_equal(here.flip, predicted != main.prediction, str(at))
            second, first = np.sort(z_t[2], axis=1)[:, -2:].T
            right = (predicted == label) & (first > second)  # ties count against the model
            np.testing.assert_array_equal(here.correct, right, str(at))
            flips += int(here.flip.sum())
    assert 0 < flips < 13 * 4 * IMAGES and aligned > 10


def alignment_by_loop(moved, permutation):
    """The paper's alignment, one image after another."""
    shuffled = np.random.default_rng((SEED, 1)).permuted(moved, axis=0)
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(moved, axis=0))

    def cosine(a, b):
        return 1 - np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)

    return [
        cosine(shuffled[i], shuffled[j]) - cosine(moved[i], moved[j])
        for i, j in enumerate(permutation)
    ]


def test_the_dataset_says_what_it_holds(whole):
    main, features = whole[""], whole["features"]
    assert dict(main.sizes) == {"transform": 13, "magnitude": 10, "image": IMAGES}
    for kind in metrics.DISTANCES:
        baseline, moved = main[f"baseline_{kind}"], main[f"transformed_{kind}"]
        relative = main[f"relative_invariance_{kind}"]
        assert relative.dtype == baseline.dtype == moved.dtype == np.float32
        np.testing.assert_allclose(relative, (baseline - moved) / (baseline + 1e-8), rtol=1e-6)
    assert main.equivariance_alignment.dtype == np.float32
    assert main.flip.dtype == main.correct.dtype == np.bool_
    assert main.attrs == {"domain": "pixel", "padding_mode": "constant"}
    zoom = main.sel(transform="scale_zoom_in", magnitude=9)
    assert (float(zoom.magnitude_value), str(zoom.unit.values)) == (3.5, "factor")
    assert str(zoom.family.values) == "geometric"
    # The group holds the embedding too, and nothing that is no matter of features.
    embedding = features.sel(feature="embedding", drop=True)
    assert embedding.identical(
        main[list(features)].drop_vars(["label", "prediction", "permutation"]).drop_attrs()
    )
    assert set(main) - set(features) == {"flip", "correct"}


def subset(found, transforms):
    """The rows of some transforms."""
    return {group: each.sel(transform=list(transforms)) for group, each in found.items()}


@pytest.mark.parametrize(
    ("per_device_batch_size", "shard_size", "count"), [(11, 100, 1), (4, 100, 8), (1, 6, 8)]
)
def test_independent_of_batches_shards_and_devices(
    digits, model, whole, per_device_batch_size, shard_size, count
):
    found = measured(
        [grid(transforms=EACH_KIND, **WITH_FEATURES)],
        digits,
        model,
        per_device_batch_size=per_device_batch_size,
        shard_size=shard_size,
        count=count,
    )
    assert_same("invariance", found["invariance"], subset(whole, EACH_KIND))


def program_for(platform, monkeypatch):
    """Lets measurements take the form of a platform, which gives the same on every other."""

    def network(**fields):
        return measurement.Network(**(fields | {"platform": platform}))

    monkeypatch.setattr(driver, "Network", network)


def test_what_a_tpu_computes_is_the_same(digits, model, whole, monkeypatch):
    program_for("tpu", monkeypatch)
    found = measured([grid(transforms=EACH_KIND, **WITH_FEATURES)], digits, model)
    assert_same("invariance", found["invariance"], subset(whole, EACH_KIND))


def test_bfloat16_is_close_and_results_are_float32(digits, model, whole):
    """Real networks compute in bfloat16 what they give out as float32; so does this one."""
    low = models.from_flax(Linear(jnp.bfloat16), model.variables, name="bfloat16")
    measurement = grid(transforms=EACH_KIND, **WITH_FEATURES)
    found = measured([measurement], digits, low)["invariance"]
    expected = subset(whole, EACH_KIND)
    for feature in ("embedding", "layer"):
        ours, theirs, all_theirs = (
            each["features"].sel(feature=feature) for each in (found, expected, whole)
        )
        for kind in metrics.DISTANCES:
            for name in (f"transformed_{kind}", f"baseline_{kind}"):
                assert ours[name].dtype == np.float32
                # 8 bits, so 1 in 256; a distance is a difference of such numbers.
                error = float(np.abs(ours[name] - theirs[name]).max())
                assert 1e-5 < error < 0.05 * float(all_theirs[name].max()), (feature, name)
    assert np.mean(found[""].prediction == expected[""].prediction) > 0.8
    again = measured([measurement], digits, low, per_device_batch_size=11)["invariance"]
    for kind in metrics.DISTANCES:
        name = f"transformed_{kind}"
        np.testing.assert_allclose(again[""][name], found[""][name], atol=0.02)


def test_identity_points_have_no_distance(whole):
    identities = [t.magnitudes[0] == t.identity for t in TRANSFORMS.values()]
    assert sum(identities) == 12  # solarize at 1 is none
    weakest = whole["features"].isel(transform=identities, magnitude=0)
    for kind in metrics.DISTANCES:
        np.testing.assert_array_equal(weakest[f"transformed_{kind}"], 0)
    np.testing.assert_array_equal(weakest.equivariance_alignment, 0)
    assert not whole[""].flip.isel(transform=identities, magnitude=0).any()


def test_normalized_identities_are_computed_and_change_what_they_clip(whole_normalized):
    changed = whole_normalized[""].transformed_euclidean.isel(magnitude=0).min("image") > 1e-3
    assert list(changed["transform"].values[changed]) == [
        *("posterize", "decrease_contrast", "increase_contrast", "solarize"),
        *("decrease_brightness", "increase_brightness"),
    ]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_what_a_transform_leaves_as_it_is_has_its_own_features(
    digits, model, platform, monkeypatch
):
    """Though the network gives an image other features at another place of a batch."""
    program_for(platform, monkeypatch)

    def apply(variables, inputs):
        logits, features = model.apply(variables, inputs)
        place = 1 + jnp.arange(len(inputs), dtype=jnp.float32)[:, None] / 100
        return logits, features | {"embedding": features["embedding"] * place}

    unsteady = dataclasses.replace(model, apply=apply)
    found = measured([grid(transforms=few("solarize"))], digits, unsteady, per_device_batch_size=40)
    # No digit is as bright as the weakest thresholds of solarize.
    pixels = pixels_of(digits)
    dark = np.asarray(pixels.max((1, 2, 3))) < TRANSFORMS["solarize"].magnitudes[1]
    assert dark.sum() > 0
    at_the_weakest = found["invariance"][""].sel(transform="solarize", magnitude=1)
    moved = at_the_weakest.transformed_euclidean.values
    np.testing.assert_array_equal(moved[dark], 0)
    assert (moved[~dark] > 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domain": "pixels"}, "unknown domain 'pixels'; did you mean 'pixel'"),
        ({"padding_mode": "wraps"}, "unknown padding mode 'wraps'; did you mean 'wrap'"),
        ({"features": ("layre",)}, r"config\.eval\.features: unknown feature 'layre'; did you"),
    ],
)
def test_unknown_names_are_named(digits, model, fields, message):
    with pytest.raises(UserError, match=message):
        measured_one(grid(**fields), digits, model)


def test_equivariance_of_feature_maps_is_refused():
    with pytest.raises(UserError, match=r"config\.eval\.pooling 'none'; expected 'mean'"):
        grid(equivariance=True, features=("layer",), pooling="none")
    assert grid(equivariance=True, pooling="none").names == ("embedding",)


def test_pooling_none_keeps_positions(digits, model, whole):
    transforms = few("translate_x")
    found = measured(
        [grid(features=("layer",), pooling="none", transforms=transforms)], digits, model
    )["invariance"]["features"]
    pooled = subset(whole, transforms)["features"]
    np.testing.assert_allclose(
        found.transformed_cosine.sel(feature="embedding"),
        pooled.transformed_cosine.sel(feature="embedding"),
        atol=1e-6,
    )
    # Four times four positions of two channels: distances of the whole map are those of all
    # positions together, at least as far as the mean position's times four.
    kept, mean = (
        each.transformed_euclidean.sel(feature="layer").values[0, 1:] for each in (found, pooled)
    )
    assert np.all(kept > 4 * mean) and not np.allclose(kept, 4 * mean, rtol=0.01)
    assert np.isfinite(kept).all()


def test_a_blind_model_is_invariant_to_what_it_cannot_see():
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
    found = measured_one(grid(transforms={"roll": roll}), coloured(), MEAN)
    for kind in metrics.DISTANCES:
        assert float(found[f"baseline_{kind}"].min()) > 1e-4
        np.testing.assert_allclose(found[f"relative_invariance_{kind}"], 1, atol=1e-5, err_msg=kind)
    # It gives no scores, so that nothing can flip.
    assert not {"flip", "correct", "prediction"} & set(found.variables)


def test_a_network_that_keeps_nothing_is_no_nearer_than_chance():
    class Chaos(Linear):
        @nn.compact
        def __call__(self, images, train=False):
            logits, features = super().__call__(images)
            # The smallest change of an image changes all.
            return logits, features | {"embedding": jnp.sin(1e4 * nn.Dense(64)(features["layer"]))}

    found = measured_one(
        grid(transforms=few("rotate")),
        coloured(64),
        linear(Chaos(), seed=0),
        per_device_batch_size=64,
    )
    invariance = found.relative_invariance_cosine.values[0, 1:]
    standard_error = 1.2533 * np.std(invariance) / np.sqrt(invariance.size)
    assert abs(np.median(invariance)) < 3 * standard_error < 0.1


# Two transforms of nine points each; the weakest magnitude changes no image.
@pytest.mark.parametrize(
    ("images", "per_device_batch_size", "batch", "points_of_a_pass"),
    [
        (12, 4, 4, [1] * 18),
        # Five points of seven rows would fit. Four passes are needed, so five points each: the
        # last pass repeats the last point twice.
        (6, 40, 7, [5] * 4),
    ],
)
def test_one_forward_pass_a_point_and_one_trace_of_the_network(
    model, images, per_device_batch_size, batch, points_of_a_pass
):
    seen = []

    def watched(variables, inputs):
        jax.debug.callback(lambda: seen.append(inputs.shape[0]))
        return model.apply(variables, inputs)

    network, traced = counted(dataclasses.replace(model, apply=watched))
    driver = make_driver(
        [grid(transforms=few("posterize", "increase_contrast"))],
        coloured(images),
        network,
        per_device_batch_size=per_device_batch_size,
    )
    driver.run()
    jax.effects_barrier()
    # For the shapes of what is carried, for the images as they are, and for the whole grid.
    assert traced == [1, batch, points_of_a_pass[0] * batch]
    batches = sum(map(len, driver.plan[1]))
    assert seen == [batch, *(batch * points for points in points_of_a_pass)] * batches


# Divides by the contrast, which an even image does not have.
CONTRAST = models.from_function(
    lambda images: 1 / (images.max((1, 2)) - images.min((1, 2))), image_size=SIDE
)


def test_features_that_are_no_numbers_are_named_by_image():
    pixels = coloured_pixels(5)
    pixels[3] = 0
    source = data.ArraySource(pixels, names=list("abcde"))
    with pytest.raises(UserError, match=r"^the features of image 'd' are not finite"):
        measured_one(grid(transforms=few("rotate")), source, CONTRAST)


def test_grid_points_that_are_no_numbers_are_named_too(tmp_path):
    message = "translate_x 224 pixels of 224: the features of image 'image_0' and 4 more are not"
    with pytest.raises(UserError, match=message):
        measured_one(
            grid(transforms=few("rotate", "translate_x")), coloured(5), CONTRAST, folder=tmp_path
        )
    assert [each.name for each in tmp_path.rglob("*.*")] == ["identity.json"]
