"""The loop as a whole: what moves, device independence, refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import stopped_after, tiny, with_

from invariance_jax import devices
from invariance_jax.errors import UserError
from invariance_jax.training import experiment, loop, metrics, program, workdir
from invariance_jax.training.losses import cross_entropy
from invariance_jax.training.step import example_keys, mixing_key


def run(config, workdir):
    return loop.train(experiment.make(config), workdir, announce=lambda _: None)


def losses(workdir):
    return [row["loss"] for row in metrics.read_metrics(workdir)]


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_training_moves_parameters_and_batch_statistics(finished):
    trained, workdir = finished
    start = experiment.make(tiny()).init_state()
    for part in ("params", "batch_stats"):
        before, after = getattr(start, part), getattr(trained.state, part)
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max()) > 0, before, after)
        assert all(jax.tree.leaves(moved))
    assert int(trained.state.step) == 4
    assert [row["step"] for row in metrics.read_metrics(workdir)] == [1, 2, 3, 4]


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    trained, workdir = finished
    monkeypatch.setattr(loop, "training_input", None)
    again = run(tiny(), workdir)
    assert_same(again.state, trained.state)
    assert again.top1 == trained.top1 and again.seconds == pytest.approx(trained.seconds)


def test_resume_on_another_number_of_devices(finished, tmp_path):
    with stopped_after(3):
        run(with_(tiny(), mesh={"data": 8}), tmp_path)
    run(tiny(), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(finished[1]), rtol=1e-4)


@pytest.mark.parametrize("mixing", [(), ("mixup(alpha=1.0)",)])
def test_the_first_loss_is_that_of_augmented_mixed_normalised_images(mixing):
    colours = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    built = experiment.make(with_(tiny(), augment={"mixing": mixing}, data=colours))
    state, batch = built.init_state(), next(loop.training_input(built, 0))
    key = jax.random.key(0)

    @jax.jit
    def expected(variables, batch):
        keys = example_keys(key, 0, batch["index"])
        images = jax.vmap(built.augmentation)(
            keys, batch["canvas"], batch["height"], batch["width"]
        )
        target = jax.nn.one_hot(batch["label"], 10)
        images, target = built.mixing(mixing_key(key, 0), images, target)
        mean, std = (jnp.array(each)[None, None, None] for each in colours.values())
        (logits, _), _ = built.model.apply(
            variables, (images - mean) / std, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(0.0)(logits, target).mean()

    wanted = float(expected(state.variables, batch))
    step = program.compile_step(built)
    for _ in range(2):  # the second time nothing is compiled
        state, metrics_ = step(state, program.no_metrics(built), batch)
        if int(state.step) == 1:
            found = float(jax.device_get(metrics_).compute()["loss"])
    assert found == pytest.approx(wanted, rel=1e-5)
    assert step._cache_size() == 1


def test_the_loop_waits_for_the_step_before_last(tmp_path, monkeypatch):
    """So that no more than that many batches lie on the devices."""
    waits = []
    wait = devices.wait_for_all_but

    def watched(most, queued, result):
        wait(most, queued, result)
        waits.append((most, len(queued), queued[-1] is result))

    monkeypatch.setattr(devices, "wait_for_all_but", watched)
    # Nothing is looked at before the end, so that each step's metrics go into the next.
    never = dict.fromkeys(("log_every", "evaluate_every", "checkpoint_every"), 100)
    config = with_(tiny(), train=never)
    run(config, tmp_path)
    assert waits == [(2, min(step, 2), True) for step in range(1, config.train.steps + 1)]


def test_a_diverged_run_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config = with_(
        tiny(),
        optimizer={
            "name": "sgd(momentum=0.0)",
            "schedule": "step(every=3, factor=1e38)",
            "learning_rate": 1e-2,
            "weight_decay": 1.0,
        },
        train={"ema_decay": 0.0},
    )
    with pytest.raises(loop.NonFiniteLossError, match=r"at step 4 .* is that of step 2\."):
        run(config, tmp_path)
    found = workdir.load_run(tmp_path)
    assert found.step == 2
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.variables))


def test_a_workdir_of_another_config_is_refused_with_both_values(finished):
    _, workdir = finished
    other = with_(tiny(), train={"steps": 9}, augment={"name": "none"})
    message = (
        r"config\.augment\.name is 'random_resized_crop_flip' there and 'none' here; "
        r"config\.train\.steps is 4 there and 9 here"
    )
    with pytest.raises(UserError, match=message):
        run(other, workdir)
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["train"]["steps"] == 4


def test_validation_counts_every_image_once(finished):
    trained, _ = finished
    built = experiment.make(tiny())  # 10 images in batches of 8
    (found,) = loop.make_validate(built)([trained.state.evaluated_variables])
    assert found[:3] == (trained.top1, trained.top5, 10)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"name": "resnet9"}}, r"config\.model\.name: unknown model 'resnet9'"),
        ({"model": {"dtype": "float16"}}, r"float16.*float32"),
        ({"augment": {"name": "transalte"}}, r"config\.augment\.name: unknown augmentation"),
        ({"augment": {"name": "translate(t=2)"}}, r"config\.augment\.name: t is 2; expected"),
        ({"mesh": {"data": 3}}, r"config\.train\.batch_size is 8; expected a multiple of 3"),
        ({"mesh": {"data": 9}}, r"config\.mesh\.data is 9; expected 0 \(all\) to 8"),
        ({"data": {"train_split": "trian"}}, r"config\.data\.train_split: .*did you mean 'train'"),
        ({"data": {"name": "imagenet2012"}}, r"config\.data\.data_dir is empty"),
        (
            {"eval": {"features": ("stage9",)}},
            r"config\.eval\.features: unknown feature 'stage9'; one of: .*stage1_block1",
        ),
        ({"eval": {"measurements": ("acuracy",)}}, r"unknown measurement 'acuracy'"),
        (
            {"data": {"resize_size": 4}},
            r"image_size is 8 and config.data.resize_size 4; expected resize_size",
        ),
    ],
)
def test_mistakes_are_found_before_training(sections, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(with_(tiny(), **sections), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_data_is_opened_when_it_is_asked_for():
    built = experiment.make(with_(tiny(), data={"train_split": "trian"}, eval={"split": "tset"}))
    assert len(built.validation_source) == 10
    with pytest.raises(UserError, match=r"config\.data\.train_split: .*did you mean 'train'"):
        built.check()
