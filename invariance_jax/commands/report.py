"""`report`: one page from the results of any number of runs."""

import json
import pathlib
import shlex
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from invariance_jax import augment, data
from invariance_jax import report as pages
from invariance_jax.commands import parsing
from invariance_jax.config import ExperimentConfig, check
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.report import tables
from invariance_jax.transforms import TRANSFORMS

_USAGE = """\
usage: invariance-jax report DIR [DIR ...] [--output=DIR]

Reads accuracy.csv and invariance/*.nc of every DIR (workdirs of evaluated runs, or of quickstart)
and writes report.html and figures/ to --output, by default the first DIR.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags and folders.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("output", None, "where the page goes", flag_values=values)

    values, _, arguments = parsing.parse(argv, usage=_USAGE, define=define, takes_arguments=True)
    if not arguments:
        raise UserError("no folder given; expected report DIR [DIR ...]")
    folders = [parsing.existing_folder(each, "report's argument") for each in arguments]
    output = pathlib.Path(values.output).expanduser() if values.output else folders[0]
    write(folders, output)


def write(folders: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """Writes the page and prints its tables.

    Args:
        folders: Where the results are.
        output: Where the page goes.
    """
    found = pages.read(folders)
    for text in (tables.accuracy_text(found), tables.invariance_text(found)):
        print(f"\n{text}")
    words = ["invariance-jax", "report", *map(str, folders), f"--output={output}"]
    path = pages.write(folders, output, examples=_examples(folders), command=shlex.join(words))
    print(f"\nreport: {path}")


def _examples(folders: Sequence[pathlib.Path]) -> np.ndarray | None:
    """The first evaluated image at every cell of the grid, if the images can still be read."""
    files = sorted(path for folder in folders for path in folder.glob("invariance/*.nc"))
    if not files:
        return None
    config = check(ExperimentConfig, json.loads(results.read(files[0]).attrs["config"]))
    try:
        source = data.load_source(
            config.data.name, config.eval.split, data_dir=config.data.data_dir
        )
    except UserError as error:
        print(f"no picture of the transforms: {error}")
        return None
    canvas, height, width = data.to_canvas(source[0]["image"], config.data.canvas_size)
    preprocess = augment.get("none", size=config.data.image_size, resize=config.data.resize_size)
    image = preprocess(jax.random.key(0), jnp.asarray(canvas), jnp.int32(height), jnp.int32(width))
    return np.stack(
        [
            jax.vmap(t.apply, (None, 0))(image, jnp.asarray(t.magnitudes, jnp.float32))
            for t in TRANSFORMS.values()
        ]
    )
