"""What holds for every augmentation: programs, stacking, tiny images, refused options."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax import augment
from invariance_jax.augment.areas import BetaArea, ExponentialArea, InverseScaleArea, UniformArea
from invariance_jax.augment.resized import ResizedCenterCrop
from invariance_jax.errors import UserError

KEY = jax.random.key(0)

STACKS = {
    "translate": ("t", (0.0, 0.1, 0.5)),
    "translate_after_crop": ("t", (0.0, 0.5)),
    "translate_scale": ("t", (0.0, 0.5)),
    "crop_translate_scale_square": ("scale", ((0.1, 0.2), (0.5, 1.0))),
    "translate_inverse_scale": ("side", ((0.1, 0.2), (0.5, 1.0))),
    "exponential_crop": ("rate", (0.1, 5.0)),
    "beta_crop": ("b", (0.3, 3.0)),
    "random_resized_crop": ("scale", ((0.08, 0.2), (0.9, 1.0))),
    "scaled_center_crop": ("k", (0, 7, 14)),
}


@pytest.fixture(scope="module")
def photo(golden_dir, canvas_of):
    pixels = np.load(golden_dir / "crops.npz")["full_u8"]
    return canvas_of(np.asarray(Image.fromarray(pixels).resize((40, 60))), 64)


@pytest.mark.parametrize("name", augment.NAMES)
def test_programs_agree_and_depend_on_the_key_only(photo, canvas_of, name):
    augmentation = augment.get(name, size=24)
    keys = jax.random.split(KEY, 3)
    mapped_function = jax.jit(jax.vmap(augmentation, (0, None, None, None)))
    mapped = np.asarray(mapped_function(keys, *photo))
    looped = np.stack([augmentation(key, *photo) for key in keys])
    np.testing.assert_allclose(mapped, looped, atol=2e-5)
    np.testing.assert_array_equal(mapped, mapped_function(keys, *photo))
    assert mapped.shape == (3, 24, 24, 3) and mapped.dtype == np.float32
    assert mapped.min() >= 0 and mapped.max() <= 1 + 1e-6 and mapped.std() > 0.01
    fixed = name == "none"
    assert (np.abs(mapped[0] - mapped[1]).max() == 0) == fixed or name == "flip"


@pytest.mark.parametrize("shape", [(1, 1000), (1, 1)])
@pytest.mark.parametrize("name", augment.NAMES)
def test_an_image_of_few_pixels_is_augmented(canvas_of, name, shape):
    pixels = np.full((*shape, 3), 200, np.uint8)
    out = jax.jit(augment.get(name, size=8))(KEY, *canvas_of(pixels, max(shape)))
    assert np.isfinite(out).all()
    if "translate" in name:
        assert (np.asarray(out) <= 200 / 255 + 1e-5).all()
    else:
        np.testing.assert_allclose(out, 200 / 255, atol=1e-5)


def test_a_crop_of_a_narrow_image_has_a_pixel_at_least():
    """A third of its width rounds to nothing."""
    height, width = jnp.int32(40), jnp.int32(1)
    crop = augment.get("random_resized_crop", size=8, ratio=(3.0, 4.0))
    box = crop.sample_box(KEY, height, width)
    assert (float(box.height), float(box.width)) == (1, 1)
    crop = augment.get("random_resized_crop", size=8, ratio=(0.25, 0.3))
    box = crop.sample_box(KEY, width, height)
    assert (float(box.height), float(box.width)) == (1, 1)


@pytest.mark.parametrize("name", STACKS)
def test_variants_of_one_structure_can_be_stacked_and_mapped_over(name):
    option, values = STACKS[name]
    variants = [augment.get(name, size=24, **{option: value}) for value in values]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *variants)
    side = jnp.int32(60), jnp.int32(40)
    boxes = jax.vmap(lambda variant: jnp.stack(variant.sample_box(KEY, *side)))(stacked)
    expected = np.stack([np.stack(variant.sample_box(KEY, *side)) for variant in variants])
    np.testing.assert_allclose(boxes, expected, rtol=1e-6, atol=1e-5)
    assert not np.allclose(expected[0], expected[-1])


def test_none_and_translate_have_one_structure():
    still = ResizedCenterCrop(size=8, resize=8, t=0.0)
    moving = augment.get("translate", size=8, resize=8, t=0.5).boxes
    assert jax.tree.structure(still) == jax.tree.structure(moving)


def test_structures_know_their_class():
    # jit keeps one program for each structure: equal ones would share the first one's.
    pairs = [
        (UniformArea(scale=(0.5, 1.0)), InverseScaleArea(side=(0.5, 1.0))),
        (ExponentialArea(rate=1.0), BetaArea(b=1.0)),
    ]
    for one, other in pairs:
        assert jax.tree.leaves(one) == jax.tree.leaves(other)
        assert jax.tree.structure(one) != jax.tree.structure(other)


def test_an_augmentation_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        augment.get("none").size = 8


@pytest.mark.parametrize("name", ["exponential_crop", "beta_crop", "translate_scale"])
def test_gradients_of_the_numbers_are_finite(photo, name):
    augmentation = augment.get(name, size=8)
    gradient = jax.grad(lambda variant: jnp.sum(variant(KEY, *photo)))(
        jax.tree.map(jnp.float32, augmentation)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("transalte", {}, "unknown augmentation 'transalte'; did you mean 'translate'"),
        ("translate", {"t": 1.5}, "t is 1.5; expected a fraction"),
        ("translate_scale", {"t": -0.1}, "t is -0.1; expected a fraction"),
        ("crop_translate_scale_square", {"t": "x"}, "t is 'x'; expected a fraction"),
        ("none", {"t": 0.1}, "augmentation 'none' has no option 't'"),
        ("translate_scale_square", {"ratio": (1, 2)}, "no option 'ratio'; its options: size, res"),
        ("none", {"size": 0}, "size is 0; expected a positive"),
        ("none", {"size": 32, "resize": 31}, "resize is 31; expected at least size"),
        ("scaled_center_crop", {"size": 32, "resize": 31}, "resize is 31; expected at least size"),
        ("random_resized_crop", {"scale": (0.5, 1.5)}, "scale is"),
        ("random_resized_crop", {"scale": (0.0, 1.0)}, "scale is"),
        ("random_resized_crop", {"scale": 0.5}, "scale is 0.5; expected two numbers"),
        ("random_resized_crop", {"scale": ("a", 1)}, "expected two numbers"),
        ("random_resized_crop", {"ratio": (2.0, 1.0)}, "ratio is"),
        ("random_resized_crop", {"ratio": (1.0, float("inf"))}, "ratio is"),
        ("random_resized_crop", {"sampler": "TF"}, "unknown sampler 'TF'"),
        ("translate_inverse_scale", {"side": (0.0, 1.0)}, "side is"),
        ("exponential_crop", {"rate": 0.0}, "rate is 0.0; expected a finite number above 0"),
        ("beta_crop", {"b": float("nan")}, "b is nan; expected a finite number above 0"),
        ("beta_crop", {"b": True}, "b is True; expected a finite number above 0"),
        ("random_crop", {"cropsize": 0}, "cropsize is 0; expected a whole number"),
        ("random_crop", {"resize": 40, "size": 8, "cropsize": 41}, "1 to resize, which is 40"),
        ("random_crop", {"size": 32, "resize": 31}, "cropsize is 32; expected"),
        ("scaled_center_crop", {"k": 15}, "k is 15; expected a whole number, 0 to 14"),
        ("scaled_center_crop", {"k": 1.5}, "k is 1.5; expected a whole number"),
    ],
)
def test_wrong_options_are_refused(name, overrides, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        augment.get(name, **overrides)


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), r"canvas has shape \(2, 8, 8, 3\); expected \[height,"),
        (np.zeros((8, 8, 1), np.uint8), r"canvas has shape \(8, 8, 1\)"),
        (np.zeros((8, 8, 3), np.float32), "canvas is float32; expected uint8"),
    ],
)
def test_what_is_no_canvas_is_refused(canvas, message):
    for function in (augment.get("none", size=8), jax.jit(augment.get("none", size=8))):
        with pytest.raises(UserError, match=message):
            function(KEY, canvas, jnp.int32(8), jnp.int32(8))
