"""Runs of `ablation.py` in one process, alone or together: steps with their input, nothing saved.

Reads the case as JSON from its argument and prints the result as one line of JSON.
"""

import collections
import json
import sys
import time
from typing import Any

import jax

from invariance_jax import devices
from invariance_jax.config import ExperimentConfig
from invariance_jax.fields import check
from invariance_jax.training import ablation, experiment, loop
from invariance_jax.training.program import program_of_all, program_of_one


def measure(case: dict[str, Any]) -> dict[str, float]:
    """Times steps of what the configs name, fed by the loop's own input."""
    jax.config.update("jax_num_cpu_devices", case["devices"])
    configs = [check(ExperimentConfig, each) for each in case["configs"]]
    if len(configs) == 1:
        built, make_program = [experiment.make(configs[0])], program_of_one
    else:
        built, make_program = ablation.make(configs), program_of_all
    program = make_program(built)
    state, metrics = program.join(each.init_state() for each in built), program.no_metrics()
    batches = loop.training_input(built[0], 0)
    try:
        first = next(batches)
        begun = time.perf_counter()
        step = program.step.lower(state, metrics, first).compile()
        compile_seconds = time.perf_counter() - begun
        queued: collections.deque[Any] = collections.deque()
        for number in range(case["warmup"] + case["steps"]):
            if number == case["warmup"]:
                jax.block_until_ready(metrics)
                begun = time.perf_counter()
            state, metrics = step(state, metrics, next(batches))
            devices.wait_for_all_but(2, queued, metrics)  # as the loop
        jax.block_until_ready(metrics)
        seconds = time.perf_counter() - begun
    finally:
        batches.close()
    return {"seconds": seconds, "compile_seconds": compile_seconds}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
