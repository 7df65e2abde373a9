"""`quickstart`: the whole question on a small scale: train, evaluate, report."""

from collections.abc import Sequence

from absl import flags

from invariance_jax.commands import evaluate, parsing, report, sweep
from invariance_jax.config import SweepConfig
from invariance_jax.training import experiment, loop

_USAGE = """\
usage: invariance-jax quickstart [--workdir=DIR] [--config=FILE] [--config.FIELD=VALUE ...]

Trains every model of the config with every augmentation, measures accuracy and invariance of
each and of the untrained networks, and writes DIR/report.html. The default takes a few minutes
on a laptop and downloads nothing. Run again, it goes on where it stopped.

  invariance-jax quickstart
  invariance-jax quickstart --workdir=seeds --config.axes.seed='(0, 1, 2)'

DIR then holds report.html, figures/ and, of each run, runs/NAME/ with its results.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("workdir", "quickstart", "where results go", flag_values=values)

    parsed = parsing.parse(
        argv, usage=_USAGE, define=define, config="configs/quickstart.py", kind=SweepConfig
    )
    workdir = parsing.required_path(parsed, "workdir", "DIR")

    # Everything is checked before the first minute is spent.
    runs = sweep.expand(parsed.config, workdir / "runs")
    planned = [experiment.make(run.config) for run in runs]
    for built in planned:
        built.check()
    for number, (run, built) in enumerate(zip(runs, planned, strict=True), 1):
        print(f"\n[{number}/{len(runs)}] {run.name}")
        if "untrained" in run.evaluate:
            untrained = evaluate.initial(run.config)
            evaluate.write(untrained, run.config, run.workdir, built.mesh, steps=0, seconds=0.0)
        trained = loop.train(built, run.workdir)
        model = built.as_model(trained.state.evaluated_variables)
        evaluate.write(
            *(model, run.config, run.workdir, built.mesh),
            steps=run.config.train.steps,
            seconds=trained.seconds,
        )
    report.write([run.workdir for run in runs], workdir)
