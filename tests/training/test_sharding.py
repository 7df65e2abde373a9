"""Which part of which array lies where, on the real networks' shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from invariance_jax import devices, models
from invariance_jax.errors import UserError
from invariance_jax.training import sharding
from invariance_jax.training.sharding import lay_out, partition_spec
from invariance_jax.training.state import init_state

EIGHT = {"data": 8, "model": 1}
FOUR_BY_TWO = {"data": 4, "model": 2}


def abstract(name):
    model = models.create(name, 1000)
    optimizer = optax.adamw(1e-3)
    return jax.eval_shape(lambda: init_state(model, optimizer, jax.random.key(0), 224, ema=True))


def specs(name, rules, axes):
    """Path to (shape, spec) of every array of the state."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            leaf.shape,
            partition_spec(
                jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape, rules, axes
            ),
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract(name))
    }


def local_elements(found, axes):
    """Elements that one device holds."""
    total = 0
    for shape, spec in found.values():
        parts = np.prod([axes[name] for name in spec if name is not None], dtype=int)
        total += int(np.prod(shape, dtype=int)) // parts
    return total


@pytest.fixture(scope="module")
def resnet18():
    return specs("resnet18", "fsdp", EIGHT)


@pytest.fixture(scope="module")
def vit_s16():
    return specs("vit_s16", "tensor", FOUR_BY_TWO)


def test_replicated_divides_nothing():
    assert {spec for _, spec in specs("resnet18", "replicated", EIGHT).values()} == {P()}


def test_fsdp_divides_the_largest_axis_that_can_be(resnet18):
    expected = {
        "params/conv1/kernel": ((7, 7, 3, 64), P(None, None, None, "data")),
        "params/stage2_block1/conv1/kernel": ((3, 3, 64, 128), P(None, None, None, "data")),
        "params/stage2_block1/bn1/scale": ((128,), P()),  # too small to be worth it
        "params/head/kernel": ((512, 1000), P(None, "data")),
        "params/head/bias": ((1000,), P()),
        "step": ((), P()),
    }
    assert {path: resnet18[path] for path in expected} == expected


def test_fsdp_leaves_one_eighth_on_each_device(resnet18):
    whole = sum(int(np.prod(shape, dtype=int)) for shape, _ in resnet18.values())
    # Parameters, two moments of AdamW and the average, with statistics.
    assert whole > 4 * 11_689_512
    small = sum(int(np.prod(x, dtype=int)) for x, _ in resnet18.values() if np.prod(x) < 2**13)
    assert small < 2e-3 * whole
    assert local_elements(resnet18, EIGHT) == small + (whole - small) / 8


def test_fsdp_keeps_whole_what_does_not_divide():
    assert partition_spec("a", (7, 3), "fsdp", EIGHT) == P()
    assert partition_spec("a", (7, 16), "fsdp", {"data": 1, "model": 1}) == P()
    assert partition_spec("a", (240, 16, 9), "fsdp", EIGHT) == P("data")
    assert partition_spec("a", (24, 16, 9), "fsdp", EIGHT) == P()


def test_tensor_parallel_is_megatrons(vit_s16):
    expected = {
        "params/block12/qkv/kernel": ((384, 1152), P(None, "model")),
        "params/block12/qkv/bias": ((1152,), P("model")),
        "params/block12/proj/kernel": ((384, 384), P("model")),
        "params/block12/proj/bias": ((384,), P()),
        "params/block1/fc1/kernel": ((384, 1536), P(None, "model")),
        "params/block1/fc1/bias": ((1536,), P("model")),
        "params/block1/fc2/kernel": ((1536, 384), P("model")),
        "params/block1/norm1/scale": ((384,), P()),
        "params/pos_embed": ((1, 197, 384), P()),
        "params/head/kernel": ((384, 1000), P()),
    }
    assert {path: vit_s16[path] for path in expected} == expected


@pytest.mark.parametrize(("name", "rules"), [("resnet18", "fsdp"), ("vit_s16", "tensor")])
def test_moments_and_average_lie_where_their_parameter_does(name, rules, request):
    found = request.getfixturevalue(name)
    parameters = {path: spec for path, spec in found.items() if path.startswith("params/")}
    assert any(spec != P() for _, spec in parameters.values())
    for path, expected in parameters.items():
        name = path.removeprefix("params/")
        for follower in ("optimizer_state/0/mu", "optimizer_state/0/nu", "ema/params"):
            assert found[f"{follower}/{name}"] == expected


def test_an_axis_that_does_not_divide_is_refused():
    message = r"config\.mesh\.model is 5.*axis 1 of params/block1/qkv/kernel.*divisor of 1152"
    with pytest.raises(UserError, match=message):
        partition_spec("params/block1/qkv/kernel", (384, 1152), "tensor", {"data": 1, "model": 5})


def test_a_network_without_tensor_parts_is_refused():
    with pytest.raises(UserError, match=r"config\.mesh\.parameters is 'tensor'.*transformers"):
        lay_out(abstract("resnet18"), devices.make_mesh(4, 2), "tensor")


def test_unknown_rules_are_named():
    with pytest.raises(UserError, match=r"'fsdpp'; did you mean 'fsdp'"):
        partition_spec("a", (8,), "fsdpp", EIGHT)


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (0, 3, r"config\.mesh\.model is 3; expected a divisor of 8"),
        (5, 2, r"config\.mesh\.data is 5; expected 0 \(all\) to 4"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(data, model, message):
    with pytest.raises(UserError, match=message):
        devices.make_mesh(data, model)


def test_the_mesh_takes_all_devices_unless_told():
    assert dict(devices.make_mesh(0, 2).shape) == {"data": 4, "model": 2}
    assert dict(devices.make_mesh(2).shape) == {"data": 2, "model": 1}


@pytest.mark.parametrize(("most", "parts"), [(4, 4), (3, 2), (16, 8)])
def test_fsdp_divides_over_groups_of_devices(monkeypatch, most, parts):
    """Eight devices stand in for 256: a group holds one copy of every array that is divided."""
    monkeypatch.setattr(sharding, "_MOST_PARTS", most)
    shapes = {"kernel": jax.ShapeDtypeStruct((32, 512), jnp.float32)}
    mesh = devices.make_mesh()
    laid_out = sharding.lay_out(shapes, mesh, "fsdp")["kernel"].sharding
    assert laid_out.device_set == set(jax.devices()) and laid_out.spec == P(None, "data")
    columns = {
        device.id: index[1].indices(512)[:2]
        for device, index in laid_out.devices_indices_map((32, 512)).items()
    }
    # Neighbours hold different parts, and the next group the same ones again.
    width = 512 // parts
    order = [each.id for each in mesh.devices.flat]
    assert [columns[each] for each in order] == [
        (place % parts * width, (place % parts + 1) * width) for place in range(8)
    ]
    # Beside the whole mesh in one program.
    batch = jax.device_put(np.ones((8, 32), np.float32), devices.by_example(mesh))
    kernel = jax.device_put(np.ones((32, 512), np.float32), laid_out)
    product = jax.jit(jnp.dot, out_shardings=devices.replicated(mesh))(batch, kernel)
    np.testing.assert_array_equal(product, np.full((8, 512), 32.0))
