"""What is not a number is found and named."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.transforms import TRANSFORMS

from .conftest import Coloured


class Contrast(nn.Module):
    """Divides by the contrast, which an even image does not have."""

    def __call__(self, images, train=False):
        contrast = images.max((1, 2)) - images.min((1, 2))
        return contrast, {"embedding": 1 / contrast}


def test_features_are_named_by_image(measure):
    source = Coloured(5)
    source._pixels[3] = 0
    with pytest.raises(UserError, match=r"^the features of image 'image_3' are not finite"):
        measure(Contrast(), model_variables={}, images=source)


def test_cells_are_named_too(measure, tmp_path):
    few = {name: TRANSFORMS[name] for name in ("rotate", "translate_x")}
    message = "translate_x 224 pixels of 224: the features of image 'image_0' and 4 more are not"
    with pytest.raises(UserError, match=message):
        measure(Contrast(), model_variables={}, images=Coloured(5), transforms=few)
    assert not list(tmp_path.rglob("grid_*"))


def test_equivariance_of_feature_maps_is_refused(measure):
    with pytest.raises(UserError, match=r"config\.eval\.pooling 'none'; expected 'mean'"):
        measure(equivariance=True, features=("layer",), pooling="none")


def test_pooling_none_keeps_positions(measure):
    found = measure(
        features=("layer",),
        pooling="none",
        transforms={"translate_x": TRANSFORMS["translate_x"]},
        images=Coloured(5),
    )
    pooled = measure(
        features=("layer",),
        transforms={"translate_x": TRANSFORMS["translate_x"]},
        images=Coloured(5),
    )
    np.testing.assert_array_equal(
        found.transformed["embedding"]["cosine"], pooled.transformed["embedding"]["cosine"]
    )
    # Four times four positions of two channels: distances of the whole map are those of all
    # positions together, at least as far as the mean position's times four.
    whole, mean = (each.transformed["layer"]["euclidean"][0, 1:] for each in (found, pooled))
    assert np.all(whole > 4 * mean) and not np.allclose(whole, 4 * mean, rtol=0.01)
    assert jnp.isfinite(whole).all()
