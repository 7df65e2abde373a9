"""Whatever is typed for a field ends in one line that names it, or builds what the config names."""

import pytest
from tiny_runs import tiny

from invariance_jax.commands import parsing
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation.measurement import preprocessing
from invariance_jax.fields import fields
from invariance_jax.training import experiment

TYPED = ("-1", "0", "1e30", "nan", "inf", "", "None", "9" * 30, str(2**31 - 1), "{'a': [1]}", "()")
FIELDS = [path for path, _ in fields(ExperimentConfig)]
# What shapes depend on; the rest is not traced again for each value.
_TRACED = ("model.", "mesh.", "data.image_size")


def build(config):
    """Makes all that a config names, and computes nothing."""
    built = experiment.make(config)
    preprocessing(config)
    built.check()
    return built


@pytest.fixture(scope="module")
def known():
    """The state of the unchanged config."""
    return experiment.make(tiny()).abstract_state


@pytest.mark.parametrize("path", FIELDS)
def test_each_value_is_refused_in_one_line_or_built(path, known, monkeypatch):
    base = tiny()
    if not path.startswith(_TRACED):
        monkeypatch.setattr(experiment.Experiment, "abstract_state", known)
    for text in TYPED:
        try:
            build(parsing.overridden(base, [(path, text)]))
        except UserError as error:
            message = str(error)
            assert "\n" not in message, (text, message)
            assert path.rpartition(".")[2] in message, (text, message)
