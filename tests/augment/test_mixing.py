"""Mixup and CutMix: by hand, and what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from invariance_jax import augment
from invariance_jax.augment.boxes import box_of
from invariance_jax.augment.mixing import mix, paste
from invariance_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 2000)
LABELS = jnp.eye(3)


def constant_images(*values, side=4):
    return jnp.broadcast_to(
        jnp.asarray(values, jnp.float32)[:, None, None, None], (len(values), side, side, 3)
    )


def test_mix_by_hand():
    images, labels = mix(constant_images(0.0, 0.4, 1.0), LABELS, jnp.float32(0.75))
    np.testing.assert_allclose(images[:, 2, 1, 0], [0.25, 0.3, 0.85], rtol=1e-6)
    np.testing.assert_array_equal(labels, [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]])


def test_paste_by_hand():
    images, labels = paste(constant_images(0.0, 0.4, 1.0), LABELS, box_of(0, 1, 2, 3))
    rows = np.asarray(images[0, :, :, 0])
    np.testing.assert_allclose(rows, [[0, 1, 1, 1]] * 2 + [[0] * 4] * 2)
    np.testing.assert_allclose(images[:, 1, 2, 0], [1.0, 0.0, 0.4])
    share = 6 / 16
    np.testing.assert_allclose(labels[2], [0, share, 1 - share])


def test_partners_are_neighbours_across_devices_too():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images = jnp.asarray(np.random.default_rng(0).random((8, 4, 4, 3), np.float32))

    def both(images, labels):
        return mix(images, labels, jnp.float32(0.75)), paste(images, labels, box_of(0, 1, 2, 3))

    alone = jax.jit(both)(images, jnp.eye(8))
    spread = jax.jit(both, in_shardings=(split, split))(images, jnp.eye(8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone, spread)


@pytest.mark.parametrize("mixing", [augment.mixup(alpha=1.0), augment.cutmix()])
def test_a_part_of_a_batch_is_mixed_with_partners_that_are_given(mixing):
    images = jnp.asarray(np.random.default_rng(0).random((6, 4, 4, 3), np.float32))
    labels = jnp.eye(6)
    whole = jax.jit(mixing)(KEYS[0], images, labels)
    others = jnp.roll(images, 1, 0)[2:4], jnp.roll(labels, 1, 0)[2:4]
    part = jax.jit(mixing)(KEYS[0], images[2:4], labels[2:4], others)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[2:4], b, rtol=1e-6), whole, part)


def test_mixup_mixes_labels_as_it_mixes_images():
    # Every image is its class's colour: the colours of the result are its labels.
    images = jnp.eye(3)[:, None, None, :] * jnp.ones((1, 4, 4, 1))
    mixup = jax.jit(jax.vmap(augment.mixup(alpha=1.0), (0, None, None)))
    mixed, labels = map(np.asarray, mixup(KEYS[:200], images, LABELS))
    np.testing.assert_allclose(mixed[:, :, 1, 2], labels, atol=1e-6)
    np.testing.assert_allclose(labels.sum(2), 1, atol=1e-6)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)  # everyone is a partner once
    weights = labels[:, 0, 0]
    np.testing.assert_allclose(labels[:, 1, 0], 1 - weights, atol=1e-6)
    assert scipy.stats.kstest(weights, "uniform").pvalue > 1e-3


def test_mixup_with_small_alpha_hardly_mixes():
    draw = jax.vmap(lambda key: augment.mixup(0.1)(key, jnp.ones((2, 1, 1, 3)), jnp.eye(2))[1])
    weights = np.asarray(jax.jit(draw)(KEYS))[:, 0, 0]
    assert np.mean(np.minimum(weights, 1 - weights) < 0.05) > 0.6


def test_cutmix_mixes_labels_by_the_pixels_shown():
    images = jnp.eye(3)[:, None, None, :] * jnp.ones((1, 8, 6, 1))
    cutmix = jax.jit(jax.vmap(augment.cutmix(), (0, None, None)))
    mixed, labels = map(np.asarray, cutmix(KEYS[:200], images, LABELS))
    np.testing.assert_allclose(mixed.mean((2, 3)), labels, atol=1e-5)
    assert set(np.unique(mixed)) == {0, 1}  # pasted, not blended
    assert len(np.unique(labels[:, 0, 0])) > 10


def test_cutmix_boxes_have_the_papers_size_and_stay_inside():
    sample = jax.vmap(lambda key: augment.cutmix().sample_box(key, 400, 200))
    boxes = np.stack(jax.jit(sample)(KEYS), axis=1)
    np.testing.assert_array_equal(boxes, np.round(boxes))
    top, left, height, width = boxes.T
    assert (height >= 0).all() and (width >= 0).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 400).all() and (left + width <= 200).all()
    uncut = (top > 0) & (left > 0) & (top + height < 400) & (left + width < 200)
    np.testing.assert_allclose(height[uncut], 2 * width[uncut], atol=2)
    # A side is sqrt(1 - kept) of the image, kept uniform: cut to what keeps the centre inside.
    generator = np.random.default_rng(0)
    half = np.floor(0.5 * np.sqrt(generator.random(4000)) * 200)
    centre = generator.integers(0, 200, 4000)
    expected = np.minimum(centre + half, 200) - np.maximum(centre - half, 0)
    assert scipy.stats.ks_2samp(width, expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.mixup(0.0), r"alpha is 0\.0; expected a number, 0\.001 to 1000"),
        (lambda: augment.cutmix("1"), r"alpha is '1'; expected a number"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
