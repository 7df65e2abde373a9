"""Checksums of arrays: one number wherever they lie, another after one flipped bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from invariance_jax import devices
from invariance_jax.training import checksums

DTYPES = (np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_)


def tree():
    random = np.random.default_rng(0)
    arrays = {np.dtype(dtype).name: random.uniform(-9, 9, (8, 6)).astype(dtype) for dtype in DTYPES}
    return {"params": arrays, "step": np.int32(7)}


def test_sums_are_those_of_plain_python_wherever_the_arrays_lie():
    arrays = tree()
    expected = {
        f"params/{name}": sum(
            int.from_bytes(each.tobytes(), "little") for each in array.reshape(-1)
        )
        % 2**32
        for name, array in arrays["params"].items()
    } | {"step": 7}
    assert checksums.of_tree(arrays) == expected
    assert checksums.of_tree(jax.tree.map(jnp.asarray, arrays)) == expected
    mesh = devices.make_mesh(8)
    divided = jax.device_put(arrays["params"], NamedSharding(mesh, PartitionSpec("data")))
    assert checksums.of_tree({"params": divided, "step": jnp.int32(7)}) == expected
    assert checksums.of_tree({}) == {}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_one_flipped_bit_is_another_array(dtype):
    before, after = tree(), tree()
    name = np.dtype(dtype).name
    after["params"][name].reshape(-1).view(np.uint8)[-1] ^= 1
    expected = checksums.of_tree(before)
    assert checksums.differing(expected, checksums.of_tree(after)) == [f"params/{name}"]
    on_device = checksums.of_tree(jax.tree.map(jnp.asarray, after))
    assert checksums.differing(expected, on_device) == [f"params/{name}"]


def test_arrays_without_a_checksum_are_believed():
    assert checksums.differing({"a": 1}, {"a": 1, "b": 2}) == []
