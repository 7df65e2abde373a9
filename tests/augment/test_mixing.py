"""Random erasing, mixup and CutMix: by hand, and what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from invariance_jax import augment
from invariance_jax.augment.boxes import Box
from invariance_jax.augment.erasing import erase
from invariance_jax.augment.mixing import mix, paste
from invariance_jax.errors import UserError

KEYS = jax.random.split(jax.random.key(0), 2000)
LABELS = jnp.eye(3)


def box(*values):
    return Box(*map(jnp.float32, values))


def sample_boxes(sampler, height, width):
    sample = jax.jit(jax.vmap(lambda key: sampler.sample_box(key, height, width)))
    return np.stack(sample(KEYS), axis=1)


def constant_images(*values, side=4):
    return jnp.broadcast_to(
        jnp.asarray(values, jnp.float32)[:, None, None, None], (len(values), side, side, 3)
    )


def test_erase_by_hand():
    out = erase(jnp.ones((3, 4, 1)), box(1, 2, 1, 2), 0.25)
    np.testing.assert_array_equal(out[..., 0], [[1, 1, 1, 1], [1, 1, 0.25, 0.25], [1, 1, 1, 1]])


def test_mix_by_hand():
    images, labels = mix(constant_images(0.0, 0.4, 1.0), LABELS, jnp.float32(0.75))
    np.testing.assert_allclose(images[:, 2, 1, 0], [0.25, 0.3, 0.85], rtol=1e-6)
    np.testing.assert_array_equal(labels, [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]])


def test_paste_by_hand():
    images, labels = paste(constant_images(0.0, 0.4, 1.0), LABELS, box(0, 1, 2, 3))
    rows = np.asarray(images[0, :, :, 0])
    np.testing.assert_allclose(rows, [[0, 1, 1, 1]] * 2 + [[0] * 4] * 2)
    np.testing.assert_allclose(images[:, 1, 2, 0], [1.0, 0.0, 0.4])
    share = 6 / 16
    np.testing.assert_allclose(labels[2], [0, share, 1 - share])


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
    boxes = sample_boxes(augment.cutmix(), 400, 200)
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


def test_random_erasing_draws_torchvisions_boxes():
    boxes = sample_boxes(augment.random_erasing(), 300, 400)
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


def test_random_erasing_erases_as_often_as_asked():
    erasing = augment.random_erasing(0.25, scale=(0.2, 0.2), fill=0.5)
    out = np.asarray(jax.jit(jax.vmap(erasing, (0, None)))(KEYS, jnp.ones((10, 12, 3))))
    share = (out == 0.5).mean((1, 2, 3))
    assert set(np.unique(out)) == {0.5, 1.0}
    assert scipy.stats.binomtest(int((share > 0).sum()), len(KEYS), 0.25).pvalue > 1e-3
    assert abs(share[share > 0].mean() - 0.2) < 0.01


def test_random_erasing_keeps_an_image_that_no_rectangle_fits():
    erasing = augment.random_erasing(1.0, scale=(1.0, 1.0))
    image = jnp.ones((5, 5, 3))
    out = jax.jit(jax.vmap(erasing, (0, None)))(KEYS[:20], image)
    np.testing.assert_array_equal(out, jnp.stack([image] * 20))


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
        (lambda: augment.mixup(0.0), r"alpha is 0\.0; expected a number, 0\.001 to 1000"),
        (lambda: augment.cutmix("1"), r"alpha is '1'; expected a number"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
