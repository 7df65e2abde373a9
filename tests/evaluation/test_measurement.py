"""What every measurement is shown, and what becomes of what it finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import (
    Images,
    Matrix,
    prepare,
    refuse_not_finite,
    to_bytes,
)

from .conftest import NONE, coloured_pixels


def test_halves_between_grey_levels_go_up_whatever_rounding_errors_say():
    halves = (np.arange(255, dtype=np.float64) + 0.5) / 255
    for error in (-1e-6, 0.0, 1e-6):
        images = jnp.asarray((halves + error).astype(np.float32).reshape(1, 5, 17, 3))
        levels = np.asarray(to_bytes(images)) * 255
        np.testing.assert_allclose(levels.reshape(-1), np.arange(1, 256), atol=1e-4)
    whole = jnp.asarray(np.arange(255, dtype=np.float32).reshape(1, 5, 17, 3) / 255)
    np.testing.assert_allclose(to_bytes(whole), whole, atol=1e-7)


def test_images_of_the_right_size_are_prepared_as_they_are():
    pixels = coloured_pixels(3)
    sides = jnp.full(3, 8, jnp.int32)
    batch = {"canvas": jnp.asarray(pixels), "height": sides, "width": sides}
    found = jax.jit(functools.partial(prepare, NONE))(batch)
    np.testing.assert_allclose(found, pixels / np.float32(255), atol=1e-7)


def test_what_is_not_finite_is_named_and_counted():
    values = np.zeros((4, 2), np.float32)
    refuse_not_finite("scores", values, "abcd")
    values[2, 1] = np.nan
    with pytest.raises(UserError, match=r"^scores of image 'c' are not finite"):
        refuse_not_finite("scores", values, "abcd")
    values[1, 0] = np.inf
    with pytest.raises(UserError, match=r"^scores of image 'b' and 1 more are not finite"):
        refuse_not_finite("scores", values, "abcd")


def test_rows_of_a_matrix_come_in_the_order_of_the_source():
    whole = np.arange(5 * 3 * 2, dtype=np.float32).reshape(5, 3, 2)  # image, row, length
    positions = [np.array([3, 0]), np.array([4, 1, 2])]
    matrix = Matrix([np.moveaxis(whole[each], 1, 0) for each in positions], positions)
    for row in range(3):
        np.testing.assert_array_equal(matrix.row(row), whole[:, row])


def test_coordinates_have_labels_where_there_are_any():
    assert Images(["a", "b"], None).coordinates() == {"image": ["a", "b"]}
    found = Images(["a", "b"], np.array([7, 2])).coordinates()
    assert found["image"] == ["a", "b"] and found["label"][0] == "image"
    assert found["label"][1].tolist() == [7, 2] and found["label"][1].dtype == np.int32
