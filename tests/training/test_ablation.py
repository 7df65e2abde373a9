"""Runs that share a program: each is what it would have been alone."""

import collections
import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from tiny_runs import take_steps, tiny, with_

from invariance_jax import data, devices, hlo
from invariance_jax.errors import UserError
from invariance_jax.models import registry
from invariance_jax.training import ablation, checkpoints, experiment, loop, metrics, workdir
from invariance_jax.training.checkpoints import CheckpointWriter
from invariance_jax.training.program import program_of_all

# One block of eight channels: what is compiled here are eight runs at once.
ADD_NETWORK = "registry.ARCHITECTURES['resnet_mu'] = registry._resnet((1,), width=8, stem='cifar')"
# With a momentum alone, rounding errors stay what they are.
SGD = {"name": "sgd(momentum=0.9)", "learning_rate": 0.005}
OWN = (
    {},
    {"augment": {"name": "translate(t=0.1)"}, "seed": 1},
    {"optimizer": {"learning_rate": 0.01, "weight_decay": 0.1}},
    {"augment": {"policies": ("random_erasing(probability=0.5)",)}, "seed": 3},
    {"augment": {"mixing": ("mixup(alpha=1.0)",)}, "train": {"label_smoothing": 0.1}, "seed": 4},
    {"augment": {"mixing": ("mixup(alpha=1.0)", "cutmix(alpha=1.0)")}},
    {"train": {"loss": "binary_cross_entropy"}, "optimizer": {"name": "sgd(momentum=0.5)"}},
    {"optimizer": {"schedule": "cosine", "warmup_steps": 1}, "seed": 7},
)
EIGHT = range(len(OWN))
FOUR_BY_TWO = {"run": 4, "data": 2}


def config_of(number, **mesh):
    """The config of one of eight runs."""
    shared = {"data": {"shuffle_seed": 5}, "augment": {"name": "none"}, "optimizer": SGD}
    base = with_(tiny("resnet_mu"), **shared)
    return with_(with_(base, **OWN[number]), mesh={"data": 1} | mesh)


@pytest.fixture(scope="module", autouse=True)
def network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ARCHITECTURES", dict(registry.ARCHITECTURES))
        exec(ADD_NETWORK, {"registry": registry})
        yield


@pytest.fixture(scope="module")
def alone():
    """The last state and the losses of every run, trained by itself."""
    found = {}
    for number in EIGHT:
        state, losses = take_steps(config_of(number), 4)
        found[number] = jax.device_get(state), losses
    return found


def assert_as_alone(state, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        jax.device_get(state),
        expected,
    )


def test_every_run_is_what_it_is_alone(alone):
    experiments = ablation.make([config_of(number, **FOUR_BY_TWO) for number in EIGHT])
    assert dict(experiments[0].mesh.shape) == {"run": 4, "data": 2, "model": 1}
    program = program_of_all(experiments)
    state = program.join(each.init_state() for each in experiments)
    batches, step, losses = loop.training_input(experiments[0], 0), None, []
    for batch in itertools.islice(batches, 4):
        step = step or program.step.lower(state, program.no_metrics(), batch).compile()
        state, found = step(state, program.no_metrics(), batch)
        of_runs = program.split(devices.to_host(found))
        losses.append([float(each.compute()["loss"]) for each in of_runs])
    batches.close()
    for number in EIGHT:
        expected, expected_losses = alone[number]
        np.testing.assert_allclose(np.array(losses)[:, number], expected_losses, rtol=1e-5)
        assert_as_alone(program.part(state, number), expected)
    # They are eight different runs.
    assert len({round(loss, 4) for loss in losses[-1]}) == len(OWN)
    module = hlo.parse(step.as_text())
    found = hlo.costs(module).collectives
    assert {each.group_size for each in found} == {2}
    assert hlo.crossing(module, 2) == [] and hlo.crossing(module, 1)
    # Within a branch only some devices would come to it.
    branches = {
        name
        for lines in module.computations.values()
        for each in lines
        if each.opcode == "conditional"
        for name in each.called("branch_computations")
    }
    assert branches
    for name in branches:
        inside = {each.opcode for each in reached(module, name)}
        assert not any(each.startswith(("all-", "collective-", "reduce-s")) for each in inside)


def reached(module, name):
    return [each for _, each, *_ in hlo._walk(module, name, 1.0, False, False)]


FOUR = (0, 1, 5, 7)


def folders(root):
    return [root / str(number) for number in FOUR]


def train(numbers, root, **mesh):
    said, lost = [], {}
    found = ablation.train(
        [config_of(number, **mesh) for number in numbers],
        [root / str(number) for number in numbers],
        announce=said.append,
        failed=lost.__setitem__,
    )
    return found, said, lost


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Four runs on four times two devices; killed when two had saved their last step."""
    root = tmp_path_factory.mktemp("killed")
    script = textwrap.dedent(
        f"""
        import json, os, pathlib, signal, sys
        import jax
        jax.config.update("jax_num_cpu_devices", 8)
        from invariance_jax.config import ExperimentConfig
        from invariance_jax.fields import check
        from invariance_jax.models import registry
        from invariance_jax.training import ablation, checkpoints
        {ADD_NETWORK}
        save = checkpoints.CheckpointWriter.save
        def save_and_die(self, step, *args, **options):
            if step == 4 and self._workdir.name == "5":
                os.kill(os.getpid(), signal.SIGKILL)
            save(self, step, *args, **options)
            self.wait()
        checkpoints.CheckpointWriter.save = save_and_die
        configs = [check(ExperimentConfig, each) for each in json.loads(sys.argv[2])]
        ablation.train(configs, [pathlib.Path(sys.argv[1]) / str(n) for n in {FOUR}])
        """
    )
    configs = ",".join(config_of(number, **FOUR_BY_TWO).to_json() for number in FOUR)
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), f"[{configs}]"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "mesh run=4, data=2, model=1" in done.stdout
    assert [checkpoints.steps(each) for each in folders(root)] == [[2, 4]] * 2 + [[2]] * 2
    return root


def copied(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "runs")
    return tmp_path / "runs"


def losses_of(folder):
    return [row["loss"] for row in metrics.read_metrics(folder)]


def test_killed_runs_go_on_together_on_fewer_devices(killed, alone, tmp_path, monkeypatch):
    # Three groups of devices for four runs: the last two places are nobody's.
    root = copied(killed, tmp_path)
    read = collections.Counter()
    decoded = data.batches._decoded

    def counted(source, canvas_size, position, *args):
        read[source.split, position] += 1
        return decoded(source, canvas_size, position, *args)

    monkeypatch.setattr(data.batches, "_decoded", counted)
    opened, training_input = [], loop.training_input

    def noted(built, start_step, announce):
        opened.append(start_step)
        return training_input(built, start_step, announce)

    monkeypatch.setattr(loop, "training_input", noted)
    found, said, lost = train(FOUR, root, run=3)
    assert not lost and "4 runs in" in said[1]
    assert "going on from the checkpoint of step 2" in said[1]
    assert "3 devices, mesh run=3, data=1, model=1" in said[0]
    for place, (number, folder) in enumerate(zip(FOUR, folders(root), strict=True)):
        expected, losses = alone[number]
        rows = metrics.read_metrics(folder)
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        np.testing.assert_allclose(losses_of(folder), losses, rtol=1e-5)
        own = workdir.read_config(folder)
        assert own.augment == config_of(number).augment and own.seed == config_of(number).seed
        state, progress = checkpoints.restore_state(
            folder, experiment.make(config_of(number)).abstract_state, print
        )
        assert_as_alone(state, expected)
        assert progress == found[place] and progress.top1 == rows[-1]["validation_top1"]
        assert "block1/conv1/kernel" in (folder / "parameters.txt").read_text()
        assert list((folder / "tensorboard").iterdir())
    # Of every image of the validation, and of two batches and what is read ahead of them.
    split = config_of(0).data.validation_split
    assert all(read[split, position] == 1 for position in range(9))
    images = sum(count for (of, _), count in read.items() if of != split)
    ahead = min(16, os.cpu_count()) + 3
    assert 8 * 2 <= images <= 8 * (2 + ahead)
    assert opened == [2]


def test_one_of_them_goes_on_alone(killed, alone, tmp_path):
    root = copied(killed, tmp_path)
    trained = loop.train(experiment.make(config_of(7)), root / "7", announce=lambda _: None)
    assert_as_alone(trained.state, alone[7][0])
    np.testing.assert_allclose(losses_of(root / "7"), alone[7][1], rtol=1e-5)


def test_a_run_that_diverges_stops_alone(alone, tmp_path, monkeypatch):
    broken = with_(config_of(2), optimizer={"learning_rate": 1e9})
    configs = [
        with_(each, mesh={"run": 1, "data": 1}) for each in (config_of(0), broken, config_of(7))
    ]
    places = [tmp_path / str(number) for number in (0, 2, 7)]
    saved, save = [], CheckpointWriter.save

    def save_and_note(self, step, *args):
        saved.append((self._workdir.name, step))
        save(self, step, *args)

    monkeypatch.setattr(CheckpointWriter, "save", save_and_note)
    said, lost = [], {}
    found = ablation.train(configs, places, announce=said.append, failed=lost.__setitem__)
    (reason,) = lost.values()
    assert list(lost) == [1] and f"{places[1]}: at step " in reason
    assert "config.optimizer.learning_rate (now 1000000000.0)" in reason
    assert any(line.endswith("The other 2 runs go on") for line in said)
    assert found[1] is None
    assert found[0].top1 == metrics.read_metrics(places[0])[-1]["validation_top1"]
    assert [step for name, step in saved if name == "2"] == checkpoints.steps(places[1])
    assert np.isfinite(losses_of(places[1])).all() and 4 not in checkpoints.steps(places[1])
    for number, folder in ((0, places[0]), (7, places[2])):
        state, _ = checkpoints.restore_state(
            folder, experiment.make(config_of(number)).abstract_state, print
        )
        assert_as_alone(state, alone[number][0])


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"model": {"name": "vit_mu8"}}, "config.model.name is 'vit_mu8', not 'resnet_mu'"),
        ({"data": {"image_size": 4}}, "config.data.image_size is 4, not 8"),
        ({"train": {"batch_size": 16}}, "config.train.batch_size is 16, not 8"),
        ({"train": {"steps": 5}}, "config.train.steps is 5, not 4"),
        ({"train": {"grad_accum_steps": 2}}, "config.train.grad_accum_steps is 2, not 1"),
        ({"train": {"ema_decay": 0.0}}, "config.train.ema_decay is 0.0, not 0.5"),
        ({"data": {"fraction": 0.5}}, "config.data.fraction is 0.5, not 1.0"),
        ({"mesh": {"data": 2}}, "config.mesh.data is 2, not 1"),
        (
            {"data": {"shuffle_seed": None}, "seed": 9},
            "config.data.shuffle_seed is 9, not 5; without it config.seed orders the images",
        ),
        (
            {"optimizer": {"name": "adamw"}},
            "config.optimizer.name is 'adamw', not 'sgd(momentum=0.9)', and with it what is kept "
            "of each parameter",
        ),
        (
            {"optimizer": {"grad_clip_norm": 1.0}},
            "config.optimizer.grad_clip_norm is 1.0, not 0.0, and with it what is kept of each "
            "parameter",
        ),
        (
            {"augment": {"learned": "augerino"}},
            "config.augment.learned is 'augerino', not ''",
        ),
        ({"mesh": {"parameters": "fsdp"}}, "config.mesh.parameters is 'fsdp', not 'replicated'"),
    ],
    ids=lambda each: str(each) if isinstance(each, dict) else "",
)
def test_what_changes_shapes_or_the_order_of_images_is_apart(sections, reason):
    other = with_(config_of(0), **sections)
    configs = [config_of(0), other, config_of(1)]
    assert ablation.groups(configs) == [[0, 2], [1]]
    assert ablation.difference(other, config_of(0)) == reason


def test_eight_runs_are_one_group_and_fsdp_is_none():
    assert ablation.groups([config_of(number) for number in EIGHT]) == [list(EIGHT)]
    fsdp = [with_(config_of(number), mesh={"parameters": "fsdp"}) for number in (0, 1)]
    assert ablation.groups(fsdp) == [[0], [1]]
    with pytest.raises(UserError, match=r"config\.mesh\.parameters is 'fsdp'; expected 'replicat"):
        ablation.make(fsdp)


@pytest.mark.parametrize(
    ("steps", "together"),
    [
        ({"a": (), "b": ()}, [["a", "b"]]),
        ({"a": (2, 4), "b": (2,), "c": (4,)}, [["a", "b", "c"]]),  # killed while they were saved
        ({"a": (60, 80), "b": (20, 40), "c": (60, 80)}, [["a", "c"], ["b"]]),  # one had failed
        ({"a": (20, 60, 80), "b": (20,), "c": ()}, [["a"], ["b"], ["c"]]),
    ],
)
def test_nobody_is_thrown_back_by_more_than_a_checkpoint(steps, together):
    assert ablation.who_go_on_together(steps) == together
