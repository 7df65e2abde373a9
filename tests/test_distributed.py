"""Who the processes are: read from the environment, refused in one line when it is wrong."""

import jax
import pytest

from invariance_jax import distributed
from invariance_jax.errors import UserError

WHOLE = {
    "INVARIANCE_JAX_COORDINATOR": "localhost:1234",
    "INVARIANCE_JAX_NUM_PROCESSES": "2",
    "INVARIANCE_JAX_PROCESS_ID": "1",
}


@pytest.fixture
def settings(monkeypatch):
    """What would have been set in JAX's configuration."""
    changed = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    return changed


@pytest.fixture
def connections(monkeypatch, settings):
    """What would have been asked of JAX."""
    made = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: made.append(options))
    return made


def test_without_variables_nothing_is_joined(connections, settings):
    distributed.initialize({"SLURM_JOB_ID": "1", "HOME": "/"}, agrees_on_sigterm=False)
    assert connections == [] and settings == {}


@pytest.mark.parametrize("agrees", [True, False])
def test_jax_takes_sigterm_only_for_programs_that_ask(agrees, connections, settings):
    distributed.initialize(WHOLE, agrees_on_sigterm=agrees)
    assert settings == {"jax_enable_preemption_service": agrees} and len(connections) == 1


def test_where_nothing_is_detected_the_message_says_so(monkeypatch, settings):
    def nothing(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing)
    with pytest.raises(UserError, match=r"'auto', but JAX finds no SLURM.*coordinator_address"):
        distributed.initialize({"INVARIANCE_JAX_DISTRIBUTED": "auto"})


def test_the_variables_name_the_processes(connections):
    distributed.initialize(WHOLE)
    (options,) = connections
    assert options["coordinator_address"] == "localhost:1234"
    assert (options["num_processes"], options["process_id"]) == (2, 1)
    assert options["heartbeat_timeout_seconds"] <= 60  # a dead process is noticed in a minute
    assert options["cluster_detection_method"] == "deactivate"


def test_auto_leaves_all_to_the_detection(connections):
    distributed.initialize({"INVARIANCE_JAX_DISTRIBUTED": "auto"})
    (options,) = connections
    assert not {"coordinator_address", "process_id", "cluster_detection_method"} & set(options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"INVARIANCE_JAX_COORDINATOR": "localhost"}, "COORDINATOR is 'localhost'; expected HOST:"),
        ({"INVARIANCE_JAX_COORDINATOR": "host:70000"}, "expected HOST:PORT"),
        ({"INVARIANCE_JAX_COORDINATOR": ""}, "COORDINATOR is not set, but INVARIANCE_JAX_NUM_PROC"),
        ({"INVARIANCE_JAX_PROCESS_ID": "2"}, "PROCESS_ID is '2'; expected a whole number, 0 to 1"),
        ({"INVARIANCE_JAX_PROCESS_ID": "one"}, "PROCESS_ID is 'one'; expected a whole number"),
        ({"INVARIANCE_JAX_NUM_PROCESSES": "0"}, "NUM_PROCESSES is '0'; .* at least 1"),
        ({"INVARIANCE_JAX_DISTRIBUTED": "yes"}, "DISTRIBUTED is 'yes'; expected 'auto'"),
        ({"INVARIANCE_JAX_DISTRIBUTED": "auto"}, "both set; expected one"),
    ],
)
def test_a_wrong_environment_is_named(changed, message, connections):
    with pytest.raises(UserError, match=message):
        distributed.initialize({**WHOLE, **changed})
    assert connections == []
