"""Widths as parameters: of the state, the optimizer, checkpoints, meshes, validation, metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_runs import stopped_after, take_steps, tiny, with_

from invariance_jax import data
from invariance_jax.augment.learned import COLLECTION
from invariance_jax.commands import export
from invariance_jax.errors import UserError
from invariance_jax.training import experiment, loop, metrics, optimizer, workdir
from invariance_jax.training.losses import cross_entropy
from invariance_jax.training.sharding import partition_spec
from invariance_jax.training.step import example_keys
from invariance_jax.transforms import normalize


def config_of(options=""):
    return with_(tiny(), augment={"name": "none", "learned": f"augerino({options})"})


def widths(state):
    return np.asarray(jax.device_get(state.params[COLLECTION]))


def without(params):
    return {name: each for name, each in params.items() if name != COLLECTION}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run with two copies of every image."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    config = config_of("train_copies=2, copies=2")
    return config, loop.train(experiment.make(config), folder, announce=lambda _: None), folder


def test_the_first_loss_is_that_of_warped_copies_and_the_regulariser(finished):
    config, _, folder = finished
    built = experiment.make(config)
    state, batch, learned = built.init_state(), next(loop.training_input(built, 0)), built.learned

    @jax.jit
    def expected(state, batch):
        keys = example_keys(jax.random.key(config.seed), 0, batch["index"])
        images = jax.vmap(built.augmentation)(
            keys, batch["canvas"], batch["height"], batch["width"]
        )
        raw, uniform = state.params[COLLECTION], learned.draw(keys, 2)
        copies = [
            learned.warp(image, learned.weights(raw, draw))
            for image, draws in zip(normalize(images), uniform, strict=True)
            for draw in draws
        ]
        (logits, _), _ = built.model.apply(
            {**state.variables, "params": without(state.params)},
            jnp.stack(copies),
            train=True,
            mutable=["batch_stats"],
        )
        average = jax.nn.log_softmax(logits).reshape(8, 2, 10).mean(1)
        target = jax.nn.one_hot(batch["label"], 10)
        norm = jnp.sqrt(jnp.sum(jax.nn.softplus(raw) ** 2))
        return cross_entropy(0.0)(average, target).mean() - 0.1 * norm

    first = metrics.read_metrics(folder)[1]
    assert first["loss"] == pytest.approx(float(expected(state, batch)), rel=1e-5)


def test_widths_are_learned_logged_averaged_and_judged(finished):
    config, trained, folder = finished
    built = experiment.make(config)
    start, end = np.float32([0.84, 0.84, 2.44]), widths(trained.state)
    assert (np.abs(end - start) > 1e-5).all()
    rows = metrics.read_metrics(folder)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["raw_width/scale"] == pytest.approx(2.44)
    assert rows[0]["width/translate_x"] == pytest.approx(0.3, abs=1e-3)
    for name, value in built.learned.metrics(end).items():
        assert rows[-1][name] == pytest.approx(value)
    average = trained.state.ema["params"][COLLECTION]
    assert (np.abs(average - end) > 1e-7).all() and (np.abs(average - start) > 1e-7).all()
    # What is evaluated later has them too.
    found = workdir.load_run(folder)
    np.testing.assert_array_equal(found.variables["params"][COLLECTION], average)


def test_validation_averages_copies_and_adds_the_regulariser(finished):
    config, trained, folder = finished
    built = experiment.make(config)
    variables, source = jax.device_get(trained.state.ema), built.validation_source
    shown = np.stack([data.to_canvas(source[i]["image"], 8)[0] for i in range(10)])
    images = normalize(jnp.asarray(shown, jnp.float32) / 255)

    @jax.jit
    def averaged(variables):
        raw, index = variables["params"][COLLECTION], jnp.arange(10)
        found = []
        for key in jax.random.split(jax.random.key(config.eval.seed), 2):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
            draws = built.learned.draw(keys, 1)[:, 0]
            warped = [
                built.learned.warp(image, built.learned.weights(raw, draw))
                for image, draw in zip(images, draws, strict=True)
            ]
            logits, _ = built.model.apply(variables, jnp.stack(warped), train=False)
            found.append(jax.nn.log_softmax(logits))
        return jnp.mean(jnp.stack(found), 0)

    scores, labels = averaged(variables), source.labels()
    row = metrics.read_metrics(folder)[-1]
    assert row["validation_top1"] == pytest.approx((scores.argmax(1) == labels).mean())
    loss = -np.asarray(jax.nn.log_softmax(scores))[np.arange(10), labels].mean()
    penalty = float(built.learned.penalty(variables["params"][COLLECTION]))
    assert penalty < -0.1
    assert row["validation_loss"] == pytest.approx(loss + penalty, rel=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one(finished, tmp_path):
    config, uninterrupted, folder = finished
    with stopped_after(3):
        loop.train(experiment.make(config), tmp_path, announce=lambda _: None)
    resumed = loop.train(experiment.make(config), tmp_path, announce=lambda _: None)
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(resumed.state),
        jax.device_get(uninterrupted.state),
    )
    timed = ("seconds", "images_per_second", "input_wait")

    def told(folder):
        return [
            {name: value for name, value in row.items() if name not in timed}
            for row in metrics.read_metrics(folder)
        ]

    assert told(tmp_path) == told(folder)


def test_a_run_that_begins_anew_tells_its_start_once(tmp_path):
    for _ in range(2):
        writer = metrics.MetricWriter(tmp_path, -1)
        writer.write(0, {"width/rotate": 1.0})
    assert [row["step"] for row in metrics.read_metrics(tmp_path)] == [0]


def test_sharded_equals_one_device(finished):
    config, trained, folder = finished
    state, losses = take_steps(with_(config, mesh={"data": 8, "parameters": "fsdp"}), 4)
    expected = [row["loss"] for row in metrics.read_metrics(folder)[1:]]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(widths(state), widths(trained.state), rtol=1e-5)


def test_every_device_holds_the_widths_of_all_classes():
    axes = {"data": 8, "model": 1}
    for path in ("params/augmentation", "optimizer_state/0/mu/augmentation"):
        assert partition_spec(path, (1000, 3), "fsdp", axes) == P()


@pytest.mark.parametrize("name", ["sgd(momentum=0.0)", "adamw", "lamb"])
@pytest.mark.parametrize("on", ["all", "kernels"])
def test_widths_do_not_decay_and_have_their_own_rate(name, on):
    config = config_of("learning_rate_factor=0.25").optimizer.with_values(
        name=name, weight_decay=0.5, weight_decay_on=on, learning_rate=0.1, schedule="constant"
    )
    learned = experiment.make(config_of("learning_rate_factor=0.25")).learned
    params = {"dense": {"kernel": jnp.ones((2, 2))}, COLLECTION: jnp.float32([1.0, 2.0, -3.0])}
    slope = {"dense": {"kernel": jnp.zeros((2, 2))}, COLLECTION: jnp.float32([0.5, 0.0, 0.0])}

    def updates(config, learned):
        made = optimizer.make_optimizer(config, 10, learned)
        return made.update(slope, made.init(params), params)[0]

    found = updates(config, learned)
    plain = updates(config.with_values(weight_decay=0.0), None)
    np.testing.assert_allclose(found[COLLECTION], 0.25 * plain[COLLECTION], rtol=1e-6)
    assert found[COLLECTION][0] < 0 == found[COLLECTION][1]
    assert (found["dense"]["kernel"] < 0).all()  # decays


def test_a_trained_network_is_exported_without_widths_and_gone_on_from(finished, tmp_path):
    _, trained, folder = finished
    file = tmp_path / "trained.safetensors"
    export.run([f"--workdir={folder}", f"--output={file}"])
    config = config_of("generators=('translate_x', 'rotate', 'scale')").with_values(
        model={"weights": str(file)}
    )
    state = experiment.make(config).init_state()
    np.testing.assert_array_equal(widths(state), np.float32([0.84, 0, 2.44]))
    jax.tree.map(
        np.testing.assert_array_equal,
        without(state.params),
        without(trained.state.ema["params"]),
    )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"augment": {"learned": "augerin"}}, r"config\.augment\.learned: .*did you mean 'aug"),
        ({"train": {"loss": "binary_cross_entropy"}}, r"config\.train\.loss is .*'cross_entropy'"),
        (
            {"augment": {"learned": "augerino(per_class=True)", "mixing": ("mixup",)}},
            r"config\.augment\.mixing is \('mixup',\); expected none with widths for each class",
        ),
    ],
)
def test_mistakes_are_found_before_training(sections, message):
    with pytest.raises(UserError, match=message):
        experiment.make(with_(config_of(), **sections))
