"""Variants with policies and mixing, as a training config names them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment
from invariance_jax.errors import UserError
from invariance_jax.transforms import TRANSFORMS

KEYS = jax.random.split(jax.random.key(0), 12)


@pytest.fixture(scope="module")
def photo(canvas_of):
    generator = np.random.default_rng(0)
    return canvas_of(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8), 16)


def made(policies, photo, name="random_resized_crop_flip"):
    augmentation = augment.with_policies(augment.get(name, size=8), policies)
    return np.asarray(jax.jit(jax.vmap(augmentation, (0, None, None, None)))(KEYS, *photo))


def test_without_policies_it_is_the_variant(photo):
    variant = augment.get("random_resized_crop_flip", size=8)
    expected = jax.jit(jax.vmap(variant, (0, None, None, None)))(KEYS, *photo)
    np.testing.assert_array_equal(made([], photo), expected)


def test_policies_follow_in_order_with_keys_of_their_own(photo):
    texts = ["random_transform(name='rotate', probability=1.0)", "random_erasing(probability=1.0)"]
    found = made(texts, photo)
    for key, image in zip(KEYS[:3], found, strict=False):
        variant, turn, erase = jax.random.split(key, 3)
        expected = augment.get("random_resized_crop_flip", size=8)(variant, *photo)
        expected = TRANSFORMS["rotate"].random(jax.random.split(turn)[1], expected)
        expected = augment.random_erasing(1.0)(erase, expected)
        np.testing.assert_allclose(image, expected, atol=2e-5)
    assert np.abs(found - made(texts[::-1], photo)).max() > 0.1


def test_random_transform_is_applied_as_often_as_asked(photo):
    text = "random_transform(name='invert', table='autoaugment', probability=0.25)"
    plain, found = made([], photo, "none")[0], made([text], photo, "none")
    inverted = [np.abs(image - (1 - plain)).max() < 0.01 for image in found]
    kept = [np.abs(image - plain).max() < 1e-6 for image in found]
    assert sum(inverted) + sum(kept) == len(KEYS) and 0 < sum(inverted) < sum(kept)


def test_random_transform_is_no_stronger_than_asked(photo):
    text = "random_transform(name='decrease_brightness', probability=1.0, strongest={})"
    plain = made([], photo, "none")[0]
    changed = {n: np.abs(made([text.format(n)], photo, "none") - plain).max() for n in (0, 9)}
    assert changed[0] < 1e-5 < 0.1 < changed[9]  # the first magnitude is the identity


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


def test_partners_are_neighbours_across_devices_too():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images = jnp.asarray(np.random.default_rng(0).random((8, 4, 4, 3), np.float32))
    arguments = KEYS[0], images, jnp.eye(8)
    for text in ("mixup", "cutmix"):
        mixing = augment.one_mixing([text])
        alone = jax.jit(mixing)(*arguments)
        spread = jax.jit(mixing, in_shardings=(None, split, split))(*arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, spread)


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
            r"random_transform.*missing 1 required keyword-only argument: 'name'",
        ),
        (
            lambda: augment.one_mixing(["mixup(alpha=0)"]),
            r"mixing\[0\]: alpha is 0; expected a number",
        ),
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
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
