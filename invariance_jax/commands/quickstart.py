"""`quickstart`: the whole question on a small scale: train, evaluate, report."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from importlib import resources

from absl import flags

from invariance_jax import experiment
from invariance_jax.commands import parsing, report
from invariance_jax.commands.evaluate import evaluate, result_name
from invariance_jax.config import ExperimentConfig, QuickstartConfig, from_config_dict
from invariance_jax.training import loop

_USAGE = """\
usage: invariance-jax quickstart [--workdir=DIR] [--config=FILE] [--config.FIELD=VALUE ...]

Trains every model of the config with every augmentation, measures accuracy and invariance of
each and of the untrained networks, and writes DIR/report.html. The default takes a few minutes
on a laptop and downloads nothing. Run again, it goes on where it stopped.

  invariance-jax quickstart
  invariance-jax quickstart --workdir=seeds --config.seeds='(0, 1, 2)'

DIR then holds report.html, figures/, accuracy.csv, invariance/NAME.nc and runs/NAME/.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("workdir", "quickstart", "where results go", flag_values=values)

    values, _ = parsing.parse(argv, usage=_USAGE, define=define, config=_default_config())
    config = from_config_dict(QuickstartConfig, values.config)
    workdir = pathlib.Path(parsing.required(values, "workdir", "DIR")).expanduser()

    # Everything is checked before the first minute is spent.
    planned = [experiment.make(each) for each in experiments(config)]
    for number, built in enumerate(planned):
        name = result_name(built.config, built.config.train.steps)
        print(f"\n[{number + 1}/{len(planned)}] {name}")
        if _starts_architecture(planned, number):
            untrained = built.init_state().variables
            evaluate(built, untrained, workdir, steps=0, seconds=0.0, overwrite=False)
        trained = loop.train(built, workdir / "runs" / name)
        evaluate(
            built,
            trained.state.evaluated_variables,
            workdir,
            steps=built.config.train.steps,
            seconds=trained.seconds,
            overwrite=False,
        )
    report.write([workdir], workdir)


def _default_config() -> str:
    """The config that is installed beside the package, in a checkout and in a wheel alike."""
    return str(resources.files("invariance_jax.configs") / "quickstart.py")


def experiments(config: QuickstartConfig) -> Iterator[ExperimentConfig]:
    """Spells out a grid of experiments.

    Args:
        config: The grid.

    Yields:
        One config for each model, seed and augmentation, in this order.
    """
    base = config.experiment
    for model in config.models:
        for seed in config.seeds:
            for augmentation in config.augmentations:
                yield dataclasses.replace(
                    base,
                    seed=seed,
                    model=dataclasses.replace(base.model, name=model),
                    augment=dataclasses.replace(base.augment, name=augmentation),
                )


def _starts_architecture(planned: Sequence[experiment.Experiment], number: int) -> bool:
    """Whether this is the first run of its model and seed: those share one untrained network."""

    def key(built: experiment.Experiment) -> tuple[str, int]:
        return built.config.model.name, built.config.seed

    return all(key(earlier) != key(planned[number]) for earlier in planned[:number])
