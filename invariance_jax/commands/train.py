"""`train`: one config, from the start or from its newest checkpoint."""

from collections.abc import Sequence

from absl import flags

from invariance_jax import distributed
from invariance_jax.commands import parsing

_USAGE = """\
usage: invariance-jax train --config=FILE[:ARGUMENT] --workdir=DIR [--config.FIELD=VALUE ...]
                            [--profile=START:STOP]

Trains one config on all devices of this machine, or of many (launch/). The same command again goes
on from the newest checkpoint in DIR; a DIR that belongs to another config is refused.

  invariance-jax train --config=configs/digits.py:resnet8,translate --workdir=workdirs/translate
  invariance-jax train --config=configs/imagenet64_resnet18.py --workdir=workdirs/resnet18 \\
      --config.data.data_dir=~/tensorflow_datasets --config.augment.name='translate(t=0.1)'

DIR then holds config.json, parameters.txt, checkpoints/, metrics.jsonl and tensorboard/. SIGTERM,
Ctrl-C or a closed terminal saves, and ends with code 143, 130 or 129; a second one ends at once.
--profile=10:15 traces steps 10 to 14 into DIR/profile, for TensorBoard or Perfetto.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("workdir", None, "the run's folder", flag_values=values)
        flags.DEFINE_string("profile", "", "steps to trace, START:STOP", flag_values=values)

    with distributed.together():
        parsed = parsing.parse(argv, usage=_USAGE, define=define, config="")
        # After the answers that need no network.
        from invariance_jax.training import experiment, loop, performance

        config = parsing.required(parsed, "config", "configs/imagenet64_resnet18.py")
        workdir = parsing.required_path(parsed, "workdir", "DIR")
        profile = performance.parse_range(parsed.flags.profile)
        built = experiment.make(config)
        built.check()
    distributed.say(distributed.device_map(built.mesh))
    trained = loop.train(built, workdir, announce=distributed.say, profile=profile)
    distributed.say(
        f"{workdir}: {config.train.steps} steps, validation top-1 {trained.top1:.2%}, "
        f"top-5 {trained.top5:.2%}, {trained.seconds:.0f} s"
    )
