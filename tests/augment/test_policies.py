"""Policies: what is drawn, and that it is what is applied."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from invariance_jax import augment
from invariance_jax.augment.boxes import box_of
from invariance_jax.augment.policies import (
    RAND_AUGMENT_OPERATIONS,
    AutoAugment,
    AutoAugmentDraw,
    RandAugmentDraw,
    RandomErasing,
    erase,
)
from invariance_jax.augment.policy_tables import PUBLISHED_POLICIES
from invariance_jax.errors import UserError
from invariance_jax.transforms import AUTOAUGMENT

KEYS = jax.random.split(jax.random.key(0), 8000)


@pytest.fixture(scope="module")
def image():
    levels = np.random.default_rng(0).integers(0, 256, (24, 20, 3))
    return jnp.asarray(levels.astype(np.float32) / 255)


@functools.cache
def compiled(function):
    """One program for all tests."""
    return jax.jit(function)


def applied(name, image, magnitude):
    """One operation outside of any policy."""
    return compiled(AUTOAUGMENT[name].function)(image, jnp.float32(magnitude))


RAND_AUGMENT = augment.rand_augment(n=2, m=20)
AUTO_AUGMENT = augment.auto_augment("svhn")


def rand_augmented(image, *steps):
    """RandAugment with given operations and signs."""
    names, signs = zip(*steps, strict=True)
    draw = RandAugmentDraw(
        jnp.asarray([RAND_AUGMENT_OPERATIONS.index(name) for name in names]),
        jnp.asarray(signs, jnp.float32),
    )
    return compiled(RAND_AUGMENT.apply)(image, draw)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", RAND_AUGMENT_OPERATIONS)
def test_one_operation_is_the_one_drawn(name, sign, image):
    # Strength 20 of 0 to 30 is two thirds of the way.
    expected = {
        **dict.fromkeys(("shear_x", "shear_y"), 0.2),
        **dict.fromkeys(("translate_x", "translate_y"), 100 / 331),
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 0.6),
        **{"rotate": 20.0, "posterize": 8 - 8 / 3, "solarize": 256 / 3, "identity": 0.0},
    }.get(name, 0.0)
    magnitude = RAND_AUGMENT.magnitudes[RAND_AUGMENT_OPERATIONS.index(name)]
    assert magnitude == pytest.approx(expected)
    signed = expected * (sign if name not in ("posterize", "solarize") else 1)
    result = image if name == "identity" else applied(name, image, signed)
    found = rand_augmented(image, (name, sign), ("identity", -1.0))
    np.testing.assert_allclose(found, result, atol=1e-6)


def test_operations_follow_each_other(image):
    expected = applied("autocontrast", applied("shear_x", image, -0.2), 0)
    found = rand_augmented(image, ("shear_x", -1.0), ("autocontrast", 1.0))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected - applied("shear_x", applied("autocontrast", image, 0), -0.2)).max() > 0


def test_with_ten_bins_the_strength_is_the_index_of_the_table():
    for m in (0, 4, 9):
        magnitudes = augment.rand_augment(m=m, bins=10).magnitudes
        for name, magnitude in zip(RAND_AUGMENT_OPERATIONS, magnitudes, strict=True):
            if name == "posterize":  # rounded by the operation
                magnitude = np.round(magnitude)
            if name != "identity":
                assert magnitude == pytest.approx(AUTOAUGMENT[name].magnitudes[m])


def test_every_operation_and_sign_is_drawn_as_often():
    draws = jax.jit(jax.vmap(augment.rand_augment(n=2).draw))(KEYS)
    for position in (0, 1):
        counts = np.bincount(draws.operations[:, position], minlength=14)
        assert counts.size == 14 and scipy.stats.chisquare(counts).pvalue > 1e-3
    pairs = draws.operations[:, 0] * 14 + draws.operations[:, 1]
    assert scipy.stats.chisquare(np.bincount(pairs, minlength=14**2)).pvalue > 1e-3
    signs = np.asarray(draws.signs)
    assert set(np.unique(signs)) == {-1, 1} and abs(signs.mean()) < 0.03


def test_policy_tables_are_well_formed():
    assert list(augment.AUTOAUGMENT_POLICIES) == ["imagenet", "cifar10", "svhn"]
    for name, table in augment.AUTOAUGMENT_POLICIES.items():
        published = PUBLISHED_POLICIES[name]
        assert len(table) == len(published) == 25
        for pair, as_published in zip(table, published, strict=True):
            assert len(pair) == 2
            for step, full in zip(pair, as_published, strict=True):
                operation, probability, index = step
                assert 0 <= probability <= 1 and index in range(10)
                assert AUTOAUGMENT[operation].name == operation and full[:2] == step[:2]
                without = operation in ("autocontrast", "equalize", "invert")
                assert index == (0 if without else full[2])


def test_policy_tables_are_the_published_ones():
    # Distinct operations, sums of probabilities and of indices in torchvision's tables: a slip in
    # a row changes one of them.
    def totals(name):
        names, probabilities, indices = zip(
            *(step for pair in augment.AUTOAUGMENT_POLICIES[name] for step in pair), strict=True
        )
        return len(set(names)), round(sum(probabilities), 1), sum(indices)

    assert {name: totals(name) for name in augment.AUTOAUGMENT_POLICIES} == {
        "imagenet": (10, 31.0, 159),
        "cifar10": (13, 26.5, 187),
        "svhn": (10, 32.9, 143),
    }
    imagenet, cifar10, svhn = augment.AUTOAUGMENT_POLICIES.values()
    assert imagenet[0] == (("posterize", 0.4, 8), ("rotate", 0.6, 9))
    assert cifar10[1] == (("rotate", 0.7, 2), ("translate_x", 0.3, 9))
    assert svhn[24] == (("shear_x", 0.7, 2), ("invert", 0.1, 0))


def test_published_rows_are_those_of_the_papers_search():
    # Section 4 of the paper searches the unique rows of two policies.
    rows = {}
    for name in ("imagenet", "svhn"):
        for operation, _, index in (step for pair in PUBLISHED_POLICIES[name] for step in pair):
            rows.setdefault(operation, set()).add(index)
    assert rows == {
        "autocontrast": {1, 3, 5},
        "color": {0, 2, 4, 8},
        "contrast": {3, 8},
        "equalize": {1, 2, 3, 4, 5, 7, 8, 9},
        "invert": {3, 4, 5, 6, 8},
        "posterize": {5, 6, 7, 8},
        "rotate": {3, 4, 8, 9},
        "sharpness": {7},
        "shear_x": {2, 4, 5, 6, 9},
        "shear_y": {4, 5, 6, 7, 8},
        "solarize": {2, 3, 4, 5, 6, 7, 8},
        "translate_x": {3},
        "translate_y": {2, 3, 6, 7},
    }


def test_auto_augment_applies_the_steps_of_its_row(image):
    apply = compiled(AUTO_AUGMENT.apply)
    for row in (1, 14, 20):
        for does in ((False, False), (True, False), (False, True), (True, True)):
            for signs in ((1.0, -1.0), (-1.0, 1.0)):
                expected = image
                steps = zip(augment.AUTOAUGMENT_POLICIES["svhn"][row], does, signs, strict=True)
                for (name, _, index), do, sign in steps:
                    magnitude = AUTOAUGMENT[name].magnitudes[index]
                    if do:
                        sign = sign if AUTOAUGMENT[name].signed else 1
                        expected = applied(name, expected, sign * magnitude)
                draw = AutoAugmentDraw(jnp.int32(row), jnp.asarray(does), jnp.asarray(signs))
                np.testing.assert_allclose(apply(image, draw), expected, atol=1e-6)


def test_auto_augment_draws_rows_evenly_and_steps_by_their_probability():
    policy = augment.auto_augment("cifar10")
    draws = jax.jit(jax.vmap(policy.draw))(KEYS)
    counts = np.bincount(draws.sub_policy, minlength=25)
    assert counts.size == 25 and scipy.stats.chisquare(counts).pvalue > 1e-3
    probabilities = np.asarray(
        [[step[1] for step in pair] for pair in augment.AUTOAUGMENT_POLICIES["cifar10"]]
    )
    for row in range(25):
        applied_steps = np.asarray(draws.applied)[np.asarray(draws.sub_policy) == row]
        for step, probability in enumerate(probabilities[row]):
            hits = int(applied_steps[:, step].sum())
            p_value = scipy.stats.binomtest(hits, len(applied_steps), probability).pvalue
            assert p_value > 1e-4, (row, step)
    signs = np.asarray(draws.signs)
    assert set(np.unique(signs)) == {-1, 1} and abs(signs.mean()) < 0.03


@pytest.mark.parametrize(
    "policy",
    [RAND_AUGMENT, AutoAugment(table=augment.AUTOAUGMENT_POLICIES["imagenet"][:3])],
    ids=["rand_augment", "auto_augment"],
)
def test_mapped_over_a_batch_each_image_has_its_own_draw(policy, image):
    images = jnp.stack([image[::-1], 1 - image, image[:, ::-1], *[image] * 13])
    mapped = jax.jit(jax.vmap(policy))(KEYS[:16], images)
    draw, apply = compiled(policy.draw), compiled(policy.apply)
    looped = [apply(each, draw(key)) for key, each in zip(KEYS[:16], images, strict=True)]
    np.testing.assert_allclose(mapped, jnp.stack(looped), atol=2e-5)
    assert mapped.dtype == jnp.float32 and mapped.shape == images.shape
    assert len({np.asarray(each).tobytes() for each in mapped[3:]}) > 4  # one image, many draws


def test_erase_by_hand():
    out = erase(jnp.ones((3, 4, 3)), box_of(1, 2, 1, 2), 0.25)
    rows = [[1, 1, 1, 1], [1, 1, 0.25, 0.25], [1, 1, 1, 1]]
    np.testing.assert_array_equal(out, np.stack([rows] * 3, axis=-1))


def test_random_erasing_draws_torchvisions_boxes():
    sample = jax.vmap(lambda key: augment.random_erasing().sample_box(key, 300, 400))
    boxes = np.stack(jax.jit(sample)(KEYS[:2000]), axis=1)
    np.testing.assert_array_equal(boxes, np.round(boxes))
    top, left, height, width = boxes.T
    assert (height > 0).all() and (height < 300).all() and (width < 400).all()
    assert (top >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    # A plain loop of torchvision's rule.
    generator = np.random.default_rng(0)
    expected = []
    while len(expected) < 4000:
        area = generator.uniform(0.02, 0.33) * 300 * 400
        aspect = np.exp(generator.uniform(np.log(0.3), np.log(3.3)))
        tried = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if tried[0] < 300 and tried[1] < 400:
            expected.append(
                [
                    generator.integers(0, 301 - tried[0]),
                    generator.integers(0, 401 - tried[1]),
                    *tried,
                ]
            )
    for name, statistic in {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 2] / b[:, 3],
    }.items():
        p_value = scipy.stats.ks_2samp(statistic(boxes), statistic(np.asarray(expected))).pvalue
        assert p_value > 1e-3, name


@jax.jit
def erased(numbers):
    """Random erasing of one image of ones with many keys."""
    erasing = RandomErasing(ratio=(0.3, 3.3), fill=0.5, **numbers)
    return jax.vmap(erasing, (0, None))(KEYS[:2000], jnp.ones((10, 12, 3)))


def test_random_erasing_erases_as_often_as_asked():
    out = np.asarray(erased({"probability": 0.25, "scale": (0.2, 0.2)}))
    share = (out == 0.5).mean((1, 2, 3))
    assert set(np.unique(out)) == {0.5, 1.0}
    assert scipy.stats.binomtest(int((share > 0).sum()), 2000, 0.25).pvalue > 1e-3
    assert abs(share[share > 0].mean() - 0.2) < 0.01


def test_random_erasing_keeps_an_image_that_no_rectangle_fits():
    # None of 120 pixels is smaller than the image along both axes.
    np.testing.assert_array_equal(erased({"probability": 1.0, "scale": (1.0, 1.0)}), 1)


def test_random_transform_is_applied_as_often_as_asked_and_no_stronger(image):
    keys, pixels = KEYS[:400], np.asarray(image)
    policy = augment.random_transform(name="decrease_brightness", probability=1, strongest=3)
    found = np.asarray(jax.jit(jax.vmap(policy, (0, None)))(keys, image))
    expected = np.linspace(1, 0, 10)[:4, None, None, None] * pixels
    shown = np.abs(found[:, None] - expected).max((2, 3, 4))
    assert (shown.min(1) < 1e-6).all()
    assert scipy.stats.chisquare(np.bincount(shown.argmin(1), minlength=4)).pvalue > 1e-3
    policy = augment.random_transform(name="invert", table="autoaugment", probability=0.25)
    found = np.asarray(jax.jit(jax.vmap(policy, (0, None)))(keys, image))
    inverted, kept = (np.abs(found - each).max((1, 2, 3)) < 1e-6 for each in (1 - pixels, pixels))
    assert inverted.sum() + kept.sum() == len(keys)
    assert scipy.stats.binomtest(int(inverted.sum()), len(keys), 0.25).pvalue > 1e-3


def test_policies_are_frozen_and_equal_by_value():
    policy = augment.rand_augment(n=3, m=5)
    assert policy == augment.rand_augment(n=3, m=5) and hash(policy) is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.n = 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.random_erasing(1.5), r"probability is 1\.5; expected a number, 0 to 1"),
        (lambda: augment.random_erasing(float("nan")), r"probability is nan"),
        (
            lambda: augment.random_erasing(scale=(0.5, 1.5)),
            r"scale is \(0\.5, 1\.5\); expected 0 <",
        ),
        (lambda: augment.random_erasing(ratio=0.3), r"ratio is 0\.3; expected two numbers"),
        (lambda: augment.random_erasing(fill=2), r"fill is 2; expected a number, 0 to 1"),
        (lambda: augment.random_transform(name="rotat"), "did you mean 'rotate'"),
        (
            lambda: augment.random_transform(name="rotate", table="x"),
            "unknown table of transforms 'x'; one of: grid, autoaugment",
        ),
        (
            lambda: augment.random_transform(name="rotate", probability=1.5),
            r"probability is 1\.5",
        ),
        (lambda: augment.random_transform(name="rotate", strongest=10), "0 to 9"),
        (lambda: augment.rand_augment(n=0), r"n is 0; expected a whole number, 1 to"),
        (lambda: augment.rand_augment(n=1.5), r"n is 1\.5; expected a whole number"),
        (lambda: augment.rand_augment(m=31), r"m is 31; expected a whole number, 0 to 30"),
        (lambda: augment.rand_augment(m=10, bins=10), r"m is 10; expected a whole number, 0 to 9"),
        (lambda: augment.rand_augment(bins=1), r"bins is 1; expected"),
        (
            lambda: augment.auto_augment("imagnet"),
            r"unknown policy 'imagnet'; did you mean 'imagenet'\? one of: imagenet, cifar10, svhn",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
