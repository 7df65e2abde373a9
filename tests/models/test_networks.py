"""ResNets and vision transformers: features, training, dtypes, initial values, messages."""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import models
from invariance_jax.errors import UserError

# A few units of each kind, for what depends on no size: compiling is most of the work.
TINY = {
    "resnet": models.create("resnet8", 10).clone(stage_sizes=(1, 1), stage_widths=(8, 16)),
    "vit": models.create("vit_mu8", 10).clone(width=32, depth=1, heads=2),
}
# Most options at once; normalised keys would have a bias that a softmax does not see.
OPTIONS = {
    "resnet_options": models.create("resnetblur50d", 10).clone(
        stage_sizes=(1, 1), stage_widths=(8, 16), base_width=32, cardinality=4
    ),
    "vit_options": models.create(
        "vit_mu8",
        10,
        activation="swiglu",
        init_values=0.1,
        reg_tokens=2,
        distilled=True,
        no_embed_class=True,
        pre_norm=True,
    ).clone(width=32, depth=1, heads=2),
}
# ResNet-18's four stages, of one narrow block each.
NARROW = {"stage_sizes": (1, 1, 1, 1), "stage_widths": (8, 8, 16, 16)}


def images_of(count=4, size=16, seed=1):
    return jax.random.normal(jax.random.key(seed), (count, size, size, 3))


def drawn(module, size=16):
    """Variables with running statistics that are not 0 and 1; nothing is compiled."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        noise = generator.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(1 + 0.1 * np.abs(noise))
        width = math.sqrt(math.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 10
        return jnp.asarray(noise / width)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def forward(module, *, train=False):
    mutable = ["batch_stats"] if train else False
    return jax.jit(lambda v, x: module.apply(v, x, train=train, mutable=mutable))


@pytest.mark.parametrize("name", TINY)
def test_jit_equals_eager(name):
    variables, images = drawn(TINY[name]), images_of()
    eager = TINY[name].apply(variables, images, train=False)
    jitted = forward(TINY[name])(variables, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), eager, jitted)


def test_features_of_resnet():
    model = models.create("resnet18", 10)
    shapes = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0][1], images_of(2, 64)
    )
    assert {name: value.shape for name, value in shapes.items()} == {
        **{f"stage1_block{b}": (2, 16, 16, 64) for b in (1, 2)},
        **{f"stage2_block{b}": (2, 8, 8, 128) for b in (1, 2)},
        **{f"stage3_block{b}": (2, 4, 4, 256) for b in (1, 2)},
        **{f"stage4_block{b}": (2, 2, 2, 512) for b in (1, 2)},
        "embedding": (2, 512),
    }
    variables = drawn(TINY["resnet"])
    logits, features = forward(TINY["resnet"])(variables, images_of())
    last = np.asarray(features["stage2_block1"])
    np.testing.assert_allclose(features["embedding"], last.mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert_head(variables, features, logits)


def test_features_of_vit():
    variables = drawn(TINY["vit"])
    logits, features = forward(TINY["vit"])(variables, images_of())
    shapes = {name: value.shape for name, value in features.items()}
    assert shapes == {"block1": (4, 5, 32), "embedding": (4, 32)}
    token = np.asarray(features["block1"])[:, 0]
    mean, variance = token.mean(1, keepdims=True), token.var(1, keepdims=True)
    norm = jax.tree.map(np.asarray, variables["params"]["norm"])
    expected = (token - mean) / np.sqrt(variance + 1e-6) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(features["embedding"], expected, atol=1e-5)
    assert_head(variables, features, logits)


def assert_head(variables, features, logits):
    head = jax.tree.map(np.asarray, variables["params"]["head"])
    expected = np.asarray(features["embedding"]) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "side", "kernel"),
    [
        ({"stem": "imagenet"}, 16, 7),
        ({"stem": "cifar", "stem_stride": 1}, 64, 3),
        ({"stem": "cifar", "stem_stride": 2}, 32, 3),
    ],
)
@pytest.mark.parametrize("name", ["resnet8", "resnet50"])
def test_stems(name, options, side, kernel):
    model = models.create(name, 10, **options)
    images = images_of(1, 64)
    (_, features), variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), images
    )
    assert features["stage1_block1"].shape[1:3] == (side, side)
    assert variables["params"]["conv1"]["kernel"].shape[:2] == (kernel, kernel)


def test_modified_resnet_without_pools_is_resnet():
    off = {"stage2_pool": False, "stage3_pool": False, "stage4_pool": False}
    plain = models.create("resnet18", 10)
    # Equal modules are one program: a module is its class and its fields.
    assert models.create("modified_resnet18", 10, **off) == plain
    assert models.create("modified_resnet18", 10) != plain


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_each_pool_changes_its_own_stage_first(stage):
    pools = {f"stage{other}_pool": other == stage for other in (2, 3, 4)}
    plain = models.create("resnet18", 10).clone(**NARROW)
    variables, images = drawn(plain, 32), images_of(2, 32)
    _, plain = forward(plain)(variables, images)
    module = models.create("modified_resnet18", 10, **pools).clone(**NARROW)
    _, pooled = forward(module)(variables, images)
    differs = {
        name for name in plain if not np.allclose(plain[name], pooled[name], rtol=1e-3, atol=1e-4)
    }
    assert differs == {
        name for name in plain if name == "embedding" or int(name[len("stage")]) >= stage
    }


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_is_close_and_parameters_stay_float32(name):
    variables, images = drawn(TINY[name]), images_of()
    assert models.create("vit_mu8", dtype="bfloat16").dtype == jnp.bfloat16
    model = TINY[name].clone(dtype=jnp.bfloat16)
    low = jax.eval_shape(lambda: model.init(jax.random.key(0), images[:1], train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("float32")}
    exact = forward(TINY[name])(variables, images)
    rough = forward(model)(variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(rough)} == {jnp.dtype("float32")}
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(rough), strict=True):
        error = np.abs(a - b).max() / np.abs(a).max()
        # No error at all would mean that it was computed in float32.
        assert 1e-4 < error < 0.05


def test_statistics_move_in_training_and_not_in_evaluation():
    variables, images = drawn(TINY["resnet"]), images_of(8)
    evaluate = jax.jit(
        lambda v, x: TINY["resnet"].apply(v, x, train=False, mutable=["batch_stats"])
    )
    _, evaluated = evaluate(variables, images)
    jax.tree.map(np.testing.assert_array_equal, evaluated["batch_stats"], variables["batch_stats"])
    _, trained = forward(TINY["resnet"], train=True)(variables, images)
    jax.tree.map(
        lambda new, old: np.testing.assert_array_less(0, np.abs(new - old).max()),
        trained["batch_stats"],
        variables["batch_stats"],
    )


def test_ghost_batches_equal_batches_run_alone():
    variables, images = drawn(TINY["resnet"]), images_of(8)
    ghosts = TINY["resnet"].clone(ghost_batch_size=4)
    (logits, features), updates = forward(ghosts, train=True)(variables, images)
    whole = forward(TINY["resnet"], train=True)
    alone = [whole(variables, part) for part in (images[:4], images[4:])]
    outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *(out for out, _ in alone))
    stats = jax.tree.map(lambda a, b: (a + b) / 2, *(updates for _, updates in alone))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, (logits, features), outputs)
    jax.tree.map(close, updates, stats)
    assert not np.allclose(whole(variables, images)[0][0], logits, atol=1e-2)
    assert models.create("resnet8", ghost_batch_size=4).ghost_batch_size == 4


def test_training_mode_means_nothing_to_vit():
    variables, images = drawn(TINY["vit"]), images_of()
    assert set(variables) == {"params"}
    trained, updates = forward(TINY["vit"], train=True)(variables, images)
    assert updates == {}
    jax.tree.map(np.testing.assert_array_equal, trained, forward(TINY["vit"])(variables, images))


@pytest.mark.parametrize("name", TINY | OPTIONS)
def test_gradients_are_finite_and_reach_every_parameter(name):
    module = (TINY | OPTIONS)[name]
    variables, images = drawn(module), images_of()

    def loss(params):
        (logits, _), _ = module.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return -jnp.mean(nn.log_softmax(logits)[:, 0])

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, path


def init(module):
    return jax.jit(functools.partial(module.init, train=False))(jax.random.key(0), images_of(1, 8))


def test_initial_values_of_resnet():
    variables = init(models.create("resnet8", 10).clone(stage_sizes=(1,), stage_widths=(64,)))
    params = variables["params"]
    block = params["stage1_block1"]
    # Kaiming over fan_out: 9 * 64 outputs see each input.
    kernel = np.asarray(block["conv1"]["kernel"])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)
    assert np.abs(kernel).max() > 3 * kernel.std()  # not truncated at two deviations
    assert (block["bn1"]["scale"] == 1).all() and (block["bn1"]["bias"] == 0).all()
    stats = variables["batch_stats"]["bn1"]
    assert (stats["mean"] == 0).all() and (stats["var"] == 1).all()
    assert_uniform(params["head"]["kernel"], 1 / np.sqrt(64), rtol=0.06)
    assert_uniform(params["head"]["bias"], 1 / np.sqrt(64), rtol=0.6)


def test_initial_values_of_vit():
    params = init(models.create("vit_mu8", 10).clone(depth=1))["params"]
    for layer in ("qkv", "proj", "fc1", "fc2"):
        kernel = np.asarray(params["block1"][layer]["kernel"])
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
        # Cut at two deviations, it would have none beyond them.
        assert np.abs(kernel).max() > 0.05
        assert (params["block1"][layer]["bias"] == 0).all()
    np.testing.assert_allclose(np.std(params["pos_embed"]), 0.02, rtol=0.1)
    np.testing.assert_allclose(np.std(params["cls_token"]), 1e-6, rtol=0.3)
    assert_uniform(params["patch_embed"]["kernel"], 1 / np.sqrt(3 * 8 * 8))
    assert_uniform(params["patch_embed"]["bias"], 1 / np.sqrt(3 * 8 * 8), rtol=0.3)


def assert_uniform(values, bound, rtol=0.02):
    values = np.asarray(values)
    assert np.abs(values).max() <= bound
    np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=rtol)


@pytest.mark.parametrize(
    ("name", "images", "message"),
    [
        ("vit_mu8", jnp.zeros((1, 30, 30, 3)), "images are 30x30; expected a side divisible by"),
        ("vit_mu8", jnp.zeros((1, 16, 32, 3)), "images are 16x32; a vision transformer expects"),
        ("resnet8", jnp.zeros((32, 32, 3)), "images have shape (32, 32, 3); expected [N, H, W, 3]"),
        ("vit_mu8", jnp.zeros((1, 32, 32, 1)), "images have shape (1, 32, 32, 1); expected [N,"),
        ("resnet8", jnp.zeros((1, 32, 32, 3), jnp.uint8), "images have dtype uint8; expected"),
        (
            "modified_resnet18",
            jnp.zeros((1, 48, 48, 3)),
            "stage4_pool halves feature maps of 3x3, which is odd; images are 48x48, expected "
            "sides divisible by 32",
        ),
    ],
)
def test_errors_of_images(name, images, message):
    with pytest.raises(UserError, match=re.escape(message)):
        jax.eval_shape(lambda: models.create(name).init(jax.random.key(0), images, train=False))


def test_vit_at_another_size():
    message = "images are 64x64; this vision transformer was initialised at 16x16"
    with pytest.raises(UserError, match=message):
        TINY["vit"].apply(drawn(TINY["vit"]), images_of(1, 64), train=False)


def test_resnet_at_another_size():
    logits, _ = forward(TINY["resnet"])(drawn(TINY["resnet"], 32), images_of(2, 48))
    assert logits.shape == (2, 10) and np.isfinite(logits).all()


def test_the_ghost_batch_size_must_divide_the_batch():
    with pytest.raises(UserError, match="ghost_batch_size is 3, but the batch has 4 images"):
        module = TINY["resnet"].clone(ghost_batch_size=3)
        jax.eval_shape(forward(module, train=True), drawn(module), images_of(4))


def test_remat_gives_the_same_numbers_and_computes_again():
    images = images_of(2, 8)
    plain, again = TINY["vit"], TINY["vit"].clone(remat=True)
    assert models.create("vit_mu8", remat=True).remat
    variables = drawn(plain, 8)
    assert jax.tree.structure(drawn(again, 8)) == jax.tree.structure(variables)

    def gradient(model):
        def loss(variables):
            logits, _ = model.apply(variables, images, train=True)
            return jnp.sum(logits**2)

        return jax.grad(loss)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        jax.jit(gradient(again))(variables),
        jax.jit(gradient(plain))(variables),
    )
    assert "remat" in str(jax.make_jaxpr(gradient(again))(variables))
    assert "remat" not in str(jax.make_jaxpr(gradient(plain))(variables))
