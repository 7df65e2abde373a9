"""The one table of measurements, and how a config asks for them."""

from collections.abc import Mapping
from types import MappingProxyType

from invariance_jax import spec
from invariance_jax.config import ExperimentConfig
from invariance_jax.evaluation.accuracy import Accuracy, TestTime
from invariance_jax.evaluation.consistency import PredictionConsistency
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.evaluation.local_equivariance import LocalEquivariance
from invariance_jax.evaluation.measurement import Measurement

MEASUREMENTS: Mapping[str, type[Measurement]] = MappingProxyType(
    {
        each.name: each
        for each in (Accuracy, Invariance, LocalEquivariance, TestTime, PredictionConsistency)
    }
)


def make_measurements(config: ExperimentConfig) -> list[Measurement]:
    """Makes what a config asks for.

    Args:
        config: The config.

    Returns:
        The measurements, in the order of the table.

    Raises:
        UserError: A name, an option or a value is wrong; the message names the field.
    """
    wanted = dict.fromkeys(config.eval.measurements)
    if config.eval.local_equivariance:
        wanted[LocalEquivariance.name] = None
    if config.eval.test_time:
        wanted[TestTime.name] = None
    makers = {name: each.from_config for name, each in MEASUREMENTS.items()}
    made = {}
    for position, text in enumerate(wanted):
        field = f"config.eval.measurements[{position}]"
        each = spec.call(makers, text, config, kind="measurement", field=field)
        made[each.name] = each
    return [made[name] for name in MEASUREMENTS if name in made]
