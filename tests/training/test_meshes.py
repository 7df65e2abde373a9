"""However the work is divided over devices, the numbers are the same."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_runs import take_steps, tiny, with_

from invariance_jax.errors import UserError
from invariance_jax.training import checkpoints, experiment, program
from invariance_jax.training.step import TrainMetrics

STEPS = 20


def config_of(name, **mesh):
    return with_(tiny(name, steps=STEPS), mesh=mesh)


@pytest.fixture(scope="module")
def alone():
    """The losses on one device, by model."""
    return {model: take_steps(config_of(model), STEPS)[1] for model in ("resnet8", "vit_mu8")}


@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        ("resnet8", {"data": 8}),
        ("resnet8", {"data": 8, "parameters": "fsdp"}),
        ("vit_mu8", {"data": 8, "parameters": "fsdp"}),
        ("vit_mu8", {"data": 4, "model": 2, "parameters": "tensor"}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_twenty_steps_lose_the_same_on_any_mesh(model, mesh, alone):
    state, losses = take_steps(config_of(model, **mesh), STEPS)
    np.testing.assert_allclose(losses, alone[model], rtol=1e-4)
    assert abs(losses[0] - losses[-1]) > 0.05  # they move, and not by rounding
    specs = {leaf.sharding.spec for leaf in jax.tree.leaves((state.params, state.optimizer_state))}
    divided = {"fsdp": "data", "tensor": "model"}.get(mesh.get("parameters"))
    assert any(divided in spec for spec in specs) if divided else specs == {P()}


@pytest.mark.parametrize("parameters", ["fsdp", "replicated"])
def test_the_network_sees_whole_parameters_and_divided_images(parameters):
    """Left to itself, XLA for TPUs gathered a batch's features, which are larger."""
    config = config_of("vit_mu8", data=8, parameters=parameters)
    built = experiment.make(config)
    numbers = np.zeros(config.train.batch_size, np.int32)
    canvas = np.zeros((len(numbers), *2 * (config.data.canvas_size,), 3), np.uint8)
    batch = {"canvas": canvas, **dict.fromkeys(("height", "width", "label", "index"), numbers)}
    step = program.step_of([built], 0, built.mesh)
    text = str(jax.make_jaxpr(step)(built.abstract_state, TrainMetrics.empty(), batch))
    # Once forward, once for its gradient.
    arrays = len(jax.tree.leaves(built.abstract_state.params))
    assert text.count("sharding_constraint[") == (2 * arrays if parameters == "fsdp" else 0)


def test_a_checkpoint_is_restored_onto_any_mesh(tmp_path):
    state = experiment.make(config_of("vit_mu8", data=8, parameters="fsdp")).init_state()
    expected = jax.device_get(state)
    progress = checkpoints.Progress(seconds=1.5)
    with checkpoints.CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(3, state, progress, {})
    for mesh in (
        {"data": 1},
        {"data": 4, "model": 2, "parameters": "tensor"},
        {"data": 2, "parameters": "fsdp"},
    ):
        abstract = experiment.make(config_of("vit_mu8", **mesh)).abstract_state
        restored, found = checkpoints.restore_state(tmp_path, abstract, print)
        assert found == progress
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), expected)
        for found, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(abstract), strict=True):
            assert found.sharding == wanted.sharding


@pytest.mark.parametrize(
    ("model", "sections", "message"),
    [
        ("resnet8", {"mesh": {"data": 4, "model": 2}}, r"config\.mesh\.model is 2.*'replicated'"),
        (
            "resnet8",
            {"mesh": {"data": 4, "model": 2, "parameters": "tensor"}},
            r"config\.mesh\.parameters is 'tensor'",
        ),
        (
            "vit_mu8",
            {"train": {"grad_accum_steps": 3}},
            r"config\.train\.grad_accum_steps is 3.*divisor",
        ),
        (
            "vit_mu8",
            {"train": {"grad_accum_steps": 4}, "mesh": {"data": 8}},
            r"train\.batch_size / config\.train\.grad_accum_steps is 2; expected a multiple of 8",
        ),
        (
            "resnet8",
            {"train": {"grad_accum_steps": 2}, "model": {"ghost_batch_size": 8}},
            r"config\.model\.ghost_batch_size is 8; expected a divisor of 4",
        ),
        ("resnet8", {"model": {"remat": True}}, r"remat of model 'resnet8' is True"),
        ("resnet8", {"train": {"loss": "hinge"}}, r"config\.train\.loss: unknown loss 'hinge'"),
        (
            "resnet8",
            {"train": {"loss": "binary_cross_entropy(threshold=2)"}},
            r"config\.train\.loss: threshold is 2; expected 0 to 1",
        ),
    ],
)
def test_what_cannot_be_divided_is_refused(model, sections, message):
    with pytest.raises(UserError, match=message):
        experiment.make(with_(tiny(model), **sections)).check()
