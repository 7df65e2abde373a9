"""`ablate`: the runs of a sweep that can share one program and one input, trained together."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from invariance_jax import devices, distributed
from invariance_jax.commands import parsing
from invariance_jax.config import SweepConfig
from invariance_jax.errors import RunError

if TYPE_CHECKING:
    from invariance_jax.commands.sweep import Run

_USAGE = """\
usage: invariance-jax ablate --config=SWEEP[:ARGUMENT] --root=DIR [--group=N] [--retry]

Trains the runs of a sweep, each into DIR/NAME as `train` would. Those that have the network, the
images, their order and the number of steps in common share one program: each image is decoded once
and augmented by every run in its own way, and the runs are divided over the devices. Runs of
several seeds have one order of images with data.shuffle_seed. The same command goes on.

  invariance-jax ablate --config=configs/sweeps/digits.py --root=workdirs/digits

A run that can share with no other is named, and why; launch/sweep.py --fused trains these too, and
evaluates. --group=N trains only the N-th group. A run whose loss becomes infinite stops alone, the
others go on, and the command ends with code 1; it is left out until --retry.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("root", None, "folder of all runs", flag_values=values)
        flags.DEFINE_integer("group", None, "train this one alone", 0, flag_values=values)
        flags.DEFINE_bool("retry", False, "train again what failed", flag_values=values)

    with distributed.together():
        parsed = parsing.parse(argv, usage=_USAGE, define=define, config="", kind=SweepConfig)
        # After the answers that need no network.
        from invariance_jax.commands import sweep
        from invariance_jax.training import ablation, checkpoints

        config = parsing.required(parsed, "config", "configs/sweeps/digits.py")
        root = parsing.required_path(parsed, "root", "DIR")
        runs, wanted = sweep.expand(config, root), parsed.flags.group
        groups, alone = sweep.grouped(runs)
        chosen = groups if groups and wanted is None else [sweep.group(runs, wanted or 0)]
        left = [[each for each in group if not each.is_trained()] for group in chosen]
    if wanted is None:
        for name, reason in alone.items():
            distributed.say(f"{name} is not trained here: {reason}")
    if parsed.flags.retry and distributed.is_lead():
        for each in itertools.chain(*left):
            each.clear_failure()
    devices.barrier("failures forgotten")
    lost: list[str] = []
    for group in left:
        steps = {n: checkpoints.steps(x.workdir) for n, x in enumerate(group) if not x.failure()}
        lost += [each.name for each in group if each.failure()]
        devices.barrier("checkpoints counted")
        for together in ablation.who_go_on_together(steps):
            lost += _train([group[number] for number in together])
    if lost:
        raise RunError(
            f"{len(lost)} of {sum(map(len, chosen))} runs did not come to their end: "
            f"{', '.join(lost)}; {root}/NAME/failed.txt says why, --retry trains them again"
        )


def _train(runs: "Sequence[Run]") -> list[str]:
    """Trains runs together; gives the names of those that failed."""
    from invariance_jax.training import ablation, loop

    lost: list[str] = []

    def failed(number: int, reason: str) -> None:
        lost.append(runs[number].name)
        if distributed.is_lead():
            runs[number].mark_failed(reason)

    configs, folders = [each.config for each in runs], [each.workdir for each in runs]
    try:
        found = ablation.train(configs, folders, announce=distributed.say, failed=failed)
    except loop.NonFiniteLossError as error:
        distributed.say(str(error))
        return lost
    for run, done in zip(runs, found, strict=True):
        if done:
            distributed.say(
                f"{run.workdir}: {run.steps} steps, validation top-1 {done.top1:.2%}, "
                f"top-5 {done.top5:.2%}, {done.seconds:.0f} s"
            )
    return lost
