"""RandAugment and AutoAugment: what is drawn, and that it is what is applied."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from invariance_jax import augment
from invariance_jax.augment.policies import (
    RAND_AUGMENT_OPERATIONS,
    AutoAugment,
    AutoAugmentDraw,
    RandAugmentDraw,
)
from invariance_jax.errors import UserError
from invariance_jax.transforms import AUTOAUGMENT

KEYS = jax.random.split(jax.random.key(0), 8000)


@pytest.fixture(scope="module")
def image():
    levels = np.random.default_rng(0).integers(0, 256, (24, 20, 3))
    return jnp.asarray(levels.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def rand_augment():
    """One program for all tests of single operations."""
    policy = augment.rand_augment(n=1, m=20)
    return policy, jax.jit(policy.apply)


def applied(name, image, magnitude):
    """One operation outside of any policy."""
    return jax.jit(AUTOAUGMENT[name].apply)(image, jnp.float32(magnitude))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", RAND_AUGMENT_OPERATIONS)
def test_one_operation_is_the_one_drawn(name, sign, image, rand_augment):
    policy, apply = rand_augment
    draw = RandAugmentDraw(
        jnp.asarray([RAND_AUGMENT_OPERATIONS.index(name)]), jnp.asarray([sign], jnp.float32)
    )
    # Strength 20 of 0 to 30 is two thirds of the way.
    expected = {
        **dict.fromkeys(("shear_x", "shear_y"), 0.2),
        **dict.fromkeys(("translate_x", "translate_y"), 100 / 331),
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 0.6),
        **{"rotate": 20.0, "posterize": 8 - 8 / 3, "solarize": 256 / 3, "identity": 0.0},
    }.get(name, 0.0)
    assert policy.magnitudes[RAND_AUGMENT_OPERATIONS.index(name)] == pytest.approx(expected)
    signed = expected * (sign if name not in ("posterize", "solarize") else 1)
    result = image if name == "identity" else applied(name, image, signed)
    np.testing.assert_allclose(apply(image, draw), result, atol=1e-6)


def test_operations_follow_each_other(image):
    policy = augment.rand_augment(n=2, m=9, bins=10)
    names = ("shear_x", "autocontrast")
    draw = RandAugmentDraw(
        jnp.asarray([RAND_AUGMENT_OPERATIONS.index(name) for name in names]),
        jnp.asarray([-1.0, 1.0]),
    )
    expected = applied("autocontrast", applied("shear_x", image, -0.3), 0)
    np.testing.assert_allclose(policy.apply(image, draw), expected, atol=1e-6)
    assert np.abs(expected - applied("shear_x", applied("autocontrast", image, 0), -0.3)).max() > 0


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


@pytest.mark.parametrize("name", augment.AUTOAUGMENT_POLICIES)
def test_policy_tables_are_well_formed(name):
    table = augment.AUTOAUGMENT_POLICIES[name]
    assert len(table) == 25 and all(len(pair) == 2 for pair in table)
    for operation, probability, index in (step for pair in table for step in pair):
        assert AUTOAUGMENT[operation].name == operation
        assert 0 <= probability <= 1 and index in range(10)
        if operation in ("autocontrast", "equalize", "invert"):
            assert index == 0


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
    assert augment.AUTOAUGMENT_POLICIES["imagenet"][0] == (
        ("posterize", 0.4, 8),
        ("rotate", 0.6, 9),
    )
    assert augment.AUTOAUGMENT_POLICIES["cifar10"][1] == (
        ("rotate", 0.7, 2),
        ("translate_x", 0.3, 9),
    )
    assert augment.AUTOAUGMENT_POLICIES["svhn"][24] == (("shear_x", 0.7, 2), ("invert", 0.1, 0))


def test_auto_augment_applies_the_steps_of_its_row(image):
    policy = augment.auto_augment("svhn")
    apply = jax.jit(policy.apply)
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
    [
        augment.rand_augment(n=2, m=20),
        AutoAugment(table=augment.AUTOAUGMENT_POLICIES["imagenet"][:3]),
    ],
    ids=["rand_augment", "auto_augment"],
)
def test_mapped_over_a_batch_each_image_has_its_own_draw(policy, image):
    images = jnp.stack([image[::-1], 1 - image, image[:, ::-1], *[image] * 13])
    mapped = jax.jit(jax.vmap(policy))(KEYS[:16], images)
    one = jax.jit(policy)
    looped = jnp.stack([one(key, each) for key, each in zip(KEYS[:16], images, strict=True)])
    np.testing.assert_allclose(mapped, looped, atol=2e-5)
    assert mapped.dtype == jnp.float32 and mapped.shape == images.shape
    assert len({np.asarray(each).tobytes() for each in mapped[3:]}) > 4  # one image, many draws


def test_policies_are_frozen_and_equal_by_value():
    policy = augment.rand_augment(n=3, m=5)
    assert policy == augment.rand_augment(n=3, m=5) and hash(policy) is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.n = 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
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
