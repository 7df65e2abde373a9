"""`export`: a checkpoint's weights as a safetensors file with torch's names."""

from collections.abc import Sequence

from absl import flags

from invariance_jax.commands import parsing
from invariance_jax.errors import UserError

_USAGE = """\
usage: invariance-jax export --workdir=DIR --output=FILE.safetensors [--checkpoint=best]

Writes the weights of a run with the names and axes of torchvision (ResNets) or timm (ViTs); of a
run with a moving average (config.train.ema_decay), the average. config.model.weights reads the file
back, and so does torch: model.load_state_dict(safetensors.torch.load_file(FILE), strict=False).
Needs DIR/config.json and DIR/checkpoints, no images. The same weights give the same file.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags.
    """

    def define(values: flags.FlagValues) -> None:
        parsing.define_run(values)
        flags.DEFINE_string("output", None, "the file to write", flag_values=values)

    parsed = parsing.parse(argv, usage=_USAGE, define=define)
    # After the answers that need no network.
    from invariance_jax import models, spec
    from invariance_jax.augment.learned import COLLECTION
    from invariance_jax.evaluation import results
    from invariance_jax.training import workdir

    folder = parsing.required_path(parsed, "workdir", "DIR")
    output = parsing.required_path(parsed, "output", "FILE.safetensors")
    if output.suffix != ".safetensors":
        raise UserError(f"--output is {str(output)!r}; expected a name that ends in .safetensors")
    trained = workdir.load_run(folder, best=parsed.flags.checkpoint == "best")
    config = trained.config
    name, options = spec.parse(config.model.name)
    # What an augmentation has learned is no part of the network.
    params = {key: x for key, x in trained.variables["params"].items() if key != COLLECTION}
    arrays = models.export_weights(
        name,
        {**trained.variables, "params": params},
        num_classes=trained.num_classes,
        **options,
    )
    metadata = {
        "format": "pt",
        "model": config.model.name,
        "step": str(trained.step),
        "parameters_sha256": results.fingerprint(trained.variables),
        "config": config.to_json(),
    }
    models.save_weights(output, arrays, metadata)
    print(f"{output}: {config.model.name} after {trained.step} steps, {len(arrays)} arrays")
