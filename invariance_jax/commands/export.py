"""`export`: a checkpoint's weights as a safetensors file with torch's names."""

import pathlib
from collections.abc import Sequence

import safetensors.numpy
from absl import flags

from invariance_jax import experiment, files, models, spec
from invariance_jax.commands import parsing
from invariance_jax.config import MeshConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.training import loop, workdir
from invariance_jax.training.checkpoints import Checkpoints

_USAGE = """\
usage: invariance-jax export --workdir=DIR --output=FILE.safetensors [--checkpoint=best]

Writes the weights of a run with the names and axes of torchvision (ResNets) or timm (ViTs); of a
run with a moving average (config.train.ema_decay), the average. config.model.weights reads the file
back, and so does torch: model.load_state_dict(safetensors.torch.load_file(FILE), strict=False).
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("workdir", None, "a trained run's folder", flag_values=values)
        flags.DEFINE_string("output", None, "the file to write", flag_values=values)
        parsing.define_checkpoint(values)

    parsed = parsing.parse(argv, usage=_USAGE, define=define)
    folder = pathlib.Path(parsing.required(parsed, "workdir", "DIR")).expanduser()
    output = pathlib.Path(parsing.required(parsed, "output", "FILE.safetensors")).expanduser()
    if output.suffix != ".safetensors":
        raise UserError(f"--output is {str(output)!r}; expected a name that ends in .safetensors")
    best = parsing.wants_best(parsed.flags)
    config = workdir.read_config(folder)
    # Whatever it was trained on, one device is enough to read it.
    alone = MeshConfig(data=1).to_dict()
    built = experiment.make(config.with_values(mesh=alone))
    with Checkpoints(folder) as checkpoints:
        restored = loop.restore_state(built, checkpoints, best=best)
    if restored is None:
        raise UserError(f"workdir {folder} holds no checkpoint yet; train it first")
    state, _ = restored
    variables = state.evaluated_variables
    name, options = spec.parse(config.model.name)
    arrays = models.export_weights(name, variables, **options)
    metadata = {
        "format": "pt",
        "model": config.model.name,
        "step": str(int(state.step)),
        "parameters_sha256": results.fingerprint(variables),
        "config": config.to_json(),
    }
    with files.atomic_path(output) as temporary:
        safetensors.numpy.save_file(arrays, temporary, metadata)
    print(f"{output}: {config.model.name} after {int(state.step)} steps, {len(arrays)} arrays")
