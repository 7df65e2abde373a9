"""`report`: one page from the results of any number of runs."""

import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import flags

from invariance_jax import data, files
from invariance_jax.commands import parsing
from invariance_jax.errors import UserError
from invariance_jax.report import examples, load, page, summaries, tables

_USAGE = """\
usage: invariance-jax report DIR [DIR ...] [--output=DIR]

Reads invariance/*.nc and accuracy/*.nc of every DIR (workdirs of evaluated runs, or of quickstart;
of the first version accuracy.csv) and writes report.html and figures/ to --output, by default the
first DIR. Runs are told apart by the fields in which their configs differ.
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
    output = files.local_path(values.output, "--output") if values.output else folders[0]
    write(folders, output)


def write(folders: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """Writes the page and prints its tables.

    Args:
        folders: Where the results are.
        output: Where the page goes.
    """
    found = load.read(folders)
    notes, example = [], None
    if found.accuracy:
        print(f"\n{tables.accuracy(found.accuracy).to_text()}")
    if found.runs:
        print(f"\n{tables.invariance(summaries.grouped_invariance(found.runs)).to_text()}")
        config = found.runs[0].config
        try:
            source = data.from_config(config.data, config.eval.split, "eval.split")
            example = examples.transformed(source[0], config.data)
        except Exception as error:  # whatever a data set raises: the page does without it
            notes.append(f"no picture of the transforms: {error}")
    for problem in (*found.problems, *notes):
        print(f"invariance-jax: {problem}", file=sys.stderr)
    command = shlex.join(["invariance-jax", "report", *map(str, folders), f"--output={output}"])
    path = page.write(found, output, example=example, notes=notes, command=command)
    print(f"\nreport: {path}")
