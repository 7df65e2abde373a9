"""`search`: what varies within each class of a data set, as a run or a file of weights sees it."""

import pathlib
from collections.abc import Sequence

from invariance_jax import distributed
from invariance_jax.commands.evaluate import measure
from invariance_jax.config import ExperimentConfig
from invariance_jax.evaluation.measurement import Measurement
from invariance_jax.factors.sanity import SimilarityChecks
from invariance_jax.factors.search import SimilaritySearch

_USAGE = """\
usage: invariance-jax search --workdir=DIR [--untrained] [--config.FIELD=VALUE ...]
       invariance-jax search --workdir=DIR --config=configs/similarity_search.py:MODEL,WEIGHTS

Looks for the operations that bring the images of a class together: of each pair of images, the
second is changed by 63 operations of AutoAugment, and its similarity to the first is compared with
that before. An operation that boosts it is a factor of variation of the class. The network is the
newest checkpoint in DIR (or --checkpoint=best), the same --untrained, or a file of weights.

Writes DIR/similarity_search/NAME.nc, the change of every pair by every operation, and NAME.csv,
every statistic of every class and operation; DIR/similarity_checks/NAME.nc and NAME.csv check what
the similarity itself says on the validation split. Interrupted, the same command goes on where it
stopped. config.search.* says which operations, images and features.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """
    paths = measure(argv, usage=_USAGE, make=_measurements, split_field="search.split")
    for path in filter(pathlib.Path.exists, paths):  # not of what is left out
        distributed.say(f"{path} and {path.with_suffix('.csv').name}")


def _measurements(config: ExperimentConfig, trained: bool) -> list[Measurement]:
    kinds = [SimilaritySearch, *([SimilarityChecks] if config.search.checks_split else [])]
    return [each.from_config(config) for each in kinds]
