"""`compare`: several result files in one table."""

import sys
from collections.abc import Sequence

from absl import flags

from invariance_jax import files
from invariance_jax.commands import parsing
from invariance_jax.errors import UserError
from invariance_jax.report import comparison, load

_USAGE = """\
usage: invariance-jax compare RESULT.nc|DIR [...] [--output=FILE.csv]

Prints, for every transform and result file (of a DIR: DIR/invariance/*.nc), the median relative
invariance, the share of predictions that the transform changes and the accuracy under it, each over
magnitudes 3 to 7; and the invariance gap of trained networks whose untrained self is among the
files. The files must hold the same grid, images and permutation.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags and files.

    Raises:
        UserError: A file is missing, or is no result file, or does not fit the others.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("output", None, "also write the numbers here", flag_values=values)
        distances, what = ["cosine", "euclidean"], "distance between embeddings"
        flags.DEFINE_enum("distance", "cosine", distances, what, flag_values=values)

    values, _, arguments = parsing.parse(argv, usage=_USAGE, define=define, takes_arguments=True)
    if not arguments:
        raise UserError("no result file given; expected compare RESULT.nc|DIR [...]")
    output = files.local_path(values.output, "--output") if values.output else None
    found = load.read_files([files.local_path(each, "compare's argument") for each in arguments])
    for problem in found.problems:
        print(f"invariance-jax: {problem}", file=sys.stderr)
    compared = comparison.compare(found.runs, measure=values.distance)
    print(comparison.to_text(compared))
    if output:
        files.write_text(output, comparison.to_csv(compared))
