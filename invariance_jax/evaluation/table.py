"""The one table of measurements, and how a config asks for them."""

from collections.abc import Mapping
from types import MappingProxyType

from invariance_jax import spec
from invariance_jax.augment import parse_learned
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.accuracy import Accuracy, AveragedAccuracy, TestTime
from invariance_jax.evaluation.consistency import PredictionConsistency
from invariance_jax.evaluation.grid import Invariance
from invariance_jax.evaluation.local_equivariance import LocalEquivariance
from invariance_jax.evaluation.measurement import Measurement

MEASUREMENTS: Mapping[str, type[Measurement]] = MappingProxyType(
    {
        each.name: each
        for each in (
            *(Accuracy, AveragedAccuracy, Invariance),
            *(LocalEquivariance, TestTime, PredictionConsistency),
        )
    }
)


def make_measurements(config: ExperimentConfig, *, trained: bool = True) -> list[Measurement]:
    """Makes what a config asks for.

    Args:
        config: The config.
        trained: Whether of a trained network: one with a learned augmentation is measured with it
            too. Before the first step nothing is learned.

    Returns:
        The measurements, in the order of the table.

    Raises:
        UserError: A name, an option or a value is wrong, or one measurement is asked for with two
            sets of options; the message names the field.
    """
    if not trained:
        config = config.with_values(augment={"learned": ""})
    learned = parse_learned(config.augment.learned, "config.augment.learned")
    wanted = dict.fromkeys(config.eval.measurements)
    asked = any(text.startswith(AveragedAccuracy.name) for text in wanted)
    if learned and not learned.per_class and not asked:
        wanted[AveragedAccuracy.name] = None
    if config.eval.local_equivariance:
        wanted[LocalEquivariance.name] = None
    if config.eval.test_time:
        wanted[TestTime.name] = None
    makers = {name: each.from_config for name, each in MEASUREMENTS.items()}
    made = {}
    for position, text in enumerate(wanted):
        field = f"config.eval.measurements[{position}]"
        each = spec.call(makers, text, config, kind="measurement", field=field)
        if each.name in made:
            raise UserError(f"{field}: {each.name} is asked for twice, with different options")
        made[each.name] = each
    return [made[name] for name in MEASUREMENTS if name in made]
