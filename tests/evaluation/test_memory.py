"""The estimate of memory, by hand and against the compiler's own count."""

import jax
import jax.numpy as jnp
import pytest

from invariance_jax import augment, models
from invariance_jax.errors import UserError
from invariance_jax.evaluation import cells, features, grid, invariance, memory
from invariance_jax.transforms import TRANSFORMS

X = jax.ShapeDtypeStruct((1000,), jnp.float32)


def test_peak_by_hand():
    assert memory.peak_bytes(lambda x: (x + 1) * (x + 2), X) == 4 * 4000  # x, both, the product
    assert memory.peak_bytes(lambda x: ((x + 1) + 1) + 1, X) == 3 * 4000  # what is used up is freed
    assert memory.peak_bytes(lambda x: x[:10] * 2, X) == 4000 + 2 * 40
    # A nested program's own values count: x, sin, cos, their product; then that, and its double.
    assert memory.peak_bytes(jax.jit(lambda x: jnp.sin(x) * jnp.cos(x)), X) == 4 * 4000


def test_peak_of_loops_and_branches():
    def body(carry, _):
        return carry, jnp.sum(jnp.tile(carry, 9))

    # x, its nine copies, five sums; loops run one after another.
    found = memory.peak_bytes(lambda x: jax.lax.scan(body, x, length=5)[1], X)
    assert 10 * 4000 <= found <= 12 * 4000

    def either(x):
        return jax.lax.cond(x[0] > 0, lambda x: jnp.sum(jnp.tile(x, 9)), lambda x: x[0], x)

    assert 10 * 4000 <= memory.peak_bytes(either, X) <= 11 * 4000


def test_largest_batch_by_hand():
    def bytes_of(batch):
        return 100 + 10 * batch

    assert memory.largest_batch(bytes_of, 155) == 5
    assert memory.largest_batch(bytes_of, 110) == 1
    with pytest.raises(UserError, match=r"config\.eval\.memory is 109 bytes .* at least 110"):
        memory.largest_batch(bytes_of, 109)


@pytest.mark.parametrize(
    ("name", "limit"), [("resnet8", 2**23), ("resnet8", 2**25), ("vit_mu8", 2**25)]
)
def test_the_compiled_grid_stays_below_the_limit(name, limit):
    side = 16
    model = models.create(name, 10)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)
    )
    names = ("embedding",)
    layout = features.make_layout(model, variables, names, "mean", side)
    few = {name: TRANSFORMS[name] for name in ("translate_x", "rotate", "posterize")}
    step = grid.make_grid_step(
        features.make_embed(model, names, "mean"),
        augment.get("none", size=side, resize=side),
        few,
        "pixel",
        "zero",
        cells.make_cells(few, "pixel"),
        layout,
        cells_at_once=1,
        equivariance=True,
    )
    size = invariance.largest_pass(step, variables, layout, side, limit)
    assert size > 1
    batch = invariance.abstract_batch(size, layout, side)
    analysis = jax.jit(step).lower(variables, batch).compile().memory_analysis()
    used = (
        analysis.temp_size_in_bytes
        + analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
    )
    assert limit / 3 < used <= limit
