"""Variants with policies and mixing, as a training config names them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment
from invariance_jax.errors import UserError
from invariance_jax.transforms import TRANSFORMS

KEYS = jax.random.split(jax.random.key(0), 12)
VARIANT = augment.get("flip", size=8)


@pytest.fixture(scope="module")
def photo(canvas_of):
    generator = np.random.default_rng(0)
    return canvas_of(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8), 16)


def test_without_policies_it_is_the_variant(photo):
    for key in KEYS[:4]:
        found = augment.with_policies(VARIANT, [])(key, *photo)
        np.testing.assert_array_equal(found, VARIANT(key, *photo))


def test_policies_follow_in_order_with_keys_of_their_own(photo):
    texts = ["random_transform(name='rotate', probability=1)", "random_transform(name='solarize')"]
    policies, other_order = (augment.with_policies(VARIANT, each) for each in (texts, texts[::-1]))
    solarized = 0
    for key in KEYS[:6]:
        variant, turn, solarize = jax.random.split(key, 3)
        expected = VARIANT(variant, *photo)
        expected = TRANSFORMS["rotate"].random(jax.random.split(turn)[1], expected)
        whether, magnitude = jax.random.split(solarize)
        if jax.random.bernoulli(whether, 0.5):
            expected = TRANSFORMS["solarize"].random(magnitude, expected)
            solarized += 1
        np.testing.assert_allclose(policies(key, *photo), expected, atol=1e-6)
        assert np.abs(policies(key, *photo) - other_order(key, *photo)).max() > 0.1
    assert 0 < solarized < 6


def test_each_batch_is_mixed_in_one_of_the_ways():
    images = jnp.eye(3)[:, None, None, :] * jnp.ones((1, 8, 6, 1))
    mixing = augment.one_mixing(["mixup(alpha=1.0)", "cutmix"])
    mixed, labels = map(
        np.asarray, jax.jit(jax.vmap(mixing, (0, None, None)))(KEYS, images, jnp.eye(3))
    )
    np.testing.assert_allclose(mixed.mean((2, 3)), labels, atol=1e-5)
    pasted = [set(np.unique(each)) <= {0, 1} for each in mixed]
    assert 0 < sum(pasted) < len(KEYS)


def test_without_mixing_the_batch_stays():
    images, labels = jnp.ones((2, 4, 4, 3)), jnp.eye(2)
    found = augment.one_mixing([])(KEYS[0], images, labels)
    assert found[0] is images and found[1] is labels


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: augment.with_policies(augment.get("none"), ["rand_augmnt"], "field"),
            r"field\[0\]: unknown policy 'rand_augmnt'; did you mean 'rand_augment'",
        ),
        (
            lambda: augment.with_policies(
                augment.get("none"), ["random_erasing", "rand_augment(k=1)"]
            ),
            r"policies\[1\]: policy 'rand_augment' has no option 'k'; its options: n, m, bins",
        ),
        (
            lambda: augment.with_policies(augment.get("none"), ["random_erasing(probability=2)"]),
            r"policies\[0\]: probability is 2; expected a number, 0 to 1",
        ),
        (
            lambda: augment.with_policies(augment.get("none"), ["random_transform"]),
            r"random_transform.*missing .*argument: 'name'",
        ),
        (
            lambda: augment.one_mixing(["mixup(alpha=0)"]),
            r"mixing\[0\]: alpha is 0; expected a number",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("texts", [[], ["random_transform(name='rotate')", "random_erasing"]])
def test_a_batch_gets_what_each_of_its_images_gets(texts, canvas_of):
    generator = np.random.default_rng(1)
    canvases = [
        canvas_of(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8), 16) for _ in KEYS
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *canvases)
    policies = augment.with_policies(VARIANT, texts)
    found = jax.jit(policies.on_batch)(KEYS, *stacked, jnp.zeros(len(KEYS), int))
    one = jax.jit(lambda key, canvas: policies(key, *canvas))
    expected = [one(key, canvas) for key, canvas in zip(KEYS, canvases, strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)
