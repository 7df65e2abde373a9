"""What a plan says, of which chips, and how it finds the largest batch."""

import importlib.util
import json

import jax
import pytest
from tiny_runs import tiny, with_

from invariance_jax.__main__ import main
from invariance_jax.errors import UserError
from invariance_jax.hlo import Collective, Costs
from invariance_jax.training import experiment, plan

has_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)
CHIP = plan.CHIPS["v5e"]


def test_data_sheets_agree_with_each_other():
    # The clock times the multiply-adds of all matrix units is the peak that utilisation knows.
    units = {"v4": 8 * 128**2, "v5e": 4 * 128**2, "v5p": 8 * 128**2, "v6e": 4 * 256**2}
    from invariance_jax.training.performance import PEAK_FLOPS

    for name, chip in plan.CHIPS.items():
        peak = PEAK_FLOPS[f"TPU {name}"]
        assert 2 * units[name] * chip.clock == pytest.approx(peak, rel=0.01), name


@pytest.mark.parametrize(
    ("collective", "seconds"),
    [
        # A long one: its bytes over both axes' links, twice where it is summed and handed out.
        (Collective("all-reduce", 0, False, 90_000_000, 1), 2 * 255 / 256 * 0.5e-3),
        (Collective("all-gather", 256, False, 90_000_000, 1), 255 / 256 * 0.5e-3),
        # A part of the chips has one axis.
        (Collective("reduce-scatter", 16, False, 90_000_000, 1), 15 / 16 * 1e-3),
        # A short one: half of each ring of 16, there and back.
        (Collective("all-reduce", 256, False, 4, 1), 2 * 16e-6),
        (Collective("all-gather", 16, False, 4, 1), 8e-6),
        (Collective("collective-permute", 2, False, 4, 1), 1e-6),
        (Collective("all-reduce", 1, False, 4, 1), 0.0),
    ],
)
def test_collectives_take_the_links_time(collective, seconds):
    assert plan.collective_seconds(collective, CHIP, 256) == pytest.approx(seconds)


def test_a_program_that_jaxlib_cannot_read_is_one_line():
    class Compiled:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure: one operand\nmore")

    message = r"cannot be read again with jaxlib [\d.]+.*; expected these of one age \(INTERNAL: "
    with pytest.raises(UserError, match=message) as caught:
        plan.estimate(Compiled(), images=8, count=4, chip=CHIP)
    assert "\n" not in str(caught.value)


def test_hidden_time_counts_where_it_is_longest():
    costs = Costs(0, 0, {}, 0, (), 0)
    one = {"images": 8, "devices": 4, "memory": {"a": 1, "b": 2}, "costs": costs}
    hidden = plan.Estimate(**one, seconds={"compute": 0.5, "lookups": 0.25}, hidden_seconds=0.5)
    assert hidden.total_seconds == 0.75 and hidden.used == 3
    assert hidden.images_per_second == pytest.approx(8 / 4 / 0.75)
    longest = plan.Estimate(**one, seconds={"compute": 0.5}, hidden_seconds=2.0)
    assert longest.total_seconds == 2.0
    unknown = plan.Estimate(**one, seconds={}, hidden_seconds=0.0)
    assert unknown.total_seconds is None and unknown.images_per_second is None


@pytest.mark.parametrize("first", [8, 64, 1000])
def test_the_largest_batch_is_found_in_few_tries(first):
    tried = []

    def used(images):
        tried.append(images)
        return 100 + 3 * images + (images > 300) * 7  # not quite a line

    assert plan.largest_batch(used, 1250, first, 8) == 376
    assert len(tried) == len(set(tried)) <= 6


def test_no_batch_fits():
    assert plan.largest_batch(lambda images: 10.0 + images, 5, 64, 8) == 0


def test_mistakes_of_a_topology():
    for name in ("v5e", "v7x:2x2", "v5e:two", "", "v5e:2x2;"):
        with pytest.raises(UserError, match=r"^--topology is .*chips: v4, v5e, v5p, v6e$"):
            plan.topology(name)


def test_mistakes_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the compiler for TPUs.*invariance_jax\[tpu\]"):
        plan.topology("v5e:2x2")


def test_devices_at_hand_have_memory_and_no_time(tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "import json, ml_collections\n"
        f"get_config = lambda: ml_collections.ConfigDict(json.loads({tiny().to_json()!r}))\n"
    )
    flags = [f"--config={config}", "--topology=here", "--num_classes=10", "--nogrid"]
    assert main(["plan", *flags, "--config.mesh.data=2", f"--json={tmp_path}/plan.json"]) == 0
    shown = capsys.readouterr().out
    assert "time              unknown" in shown and "all-reduce" in shown
    found = json.loads((tmp_path / "plan.json").read_text())
    training = found["training"]
    assert found["devices"] == 2 and training["images"] == tiny().train.batch_size
    # Both devices add up their gradients.
    assert any(
        each["kind"] == "all-reduce" and each["group_size"] in (0, 2)
        for each in training["costs"]["collectives"]
    )
    # A part of the batch of canvases is among the arguments.
    canvases = tiny().train.batch_size // 2 * tiny().data.canvas_size ** 2 * 3
    assert training["memory"]["arguments"] > canvases and training["total_seconds"] is None
    assert main(["plan", *flags, "--fit"]) == 2
    assert main(["plan", *flags, "--config.train.batch_size=3", "--config.mesh.data=2"]) == 2
    assert "expected a multiple of 2" in capsys.readouterr().err


@has_libtpu
def test_every_chip_is_one_device():
    for name, count, hosts in (("v4:2x2x4", 16, 4), ("v5p:2x2x4", 16, 4), ("v6e:4x4", 16, 4)):
        devices, chip = plan.topology(name)
        assert (len(devices), len({each.process_index for each in devices})) == (count, hosts)
        assert chip == plan.CHIPS[name.partition(":")[0]]
    with pytest.raises(UserError, match="'v5e:3x5', which libtpu does not know: "):
        plan.topology("v5e:3x5")


@has_libtpu
def test_a_tiny_step_for_four_chips():
    devices, chip = plan.topology("v5e:2x2")
    assert len(devices) == 4 and chip == CHIP and devices[0].device_kind == "TPU v5 lite"
    config = with_(tiny(), mesh={"data": 4})
    built = experiment.make(config, available=devices, num_classes=10)
    compiled = plan.compile_training([built])
    found = plan.estimate(compiled, images=config.train.batch_size, count=4, chip=chip)
    assert found.seconds["compute"] > 1e-6 and found.seconds["collectives"] > 1e-6
    assert found.images_per_second == pytest.approx(8 / 4 / found.total_seconds)
    gradients = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(built.abstract_state.params))
    reduced = sum(
        each.bytes * each.count for each in found.costs.collectives if each.kind == "all-reduce"
    )
    assert gradients <= reduced < 1.5 * gradients
    assert {each.group_size for each in found.costs.collectives} <= {0, 4}
