"""`compare`: several result files in one table."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from invariance_jax import files
from invariance_jax.commands import parsing
from invariance_jax.errors import UserError
from invariance_jax.report import comparison, load

_USAGE = """\
usage: invariance-jax compare RESULT.nc|DIR [...] [--output=FILE.csv]
       invariance-jax compare --leaderboard [--sort=COLUMN] RESULT.nc|DIR [...] [--output=FILE.csv]
       invariance-jax compare --by_class DIR DIR [...] [--output=FILE.csv]

Prints, for every transform and result file (of a DIR: DIR/invariance/*.nc), the median relative
invariance, the share of predictions that the transform changes and the accuracy under it, each over
magnitudes 3 to 7; and the invariance gap of trained networks whose untrained self is among the
files. The files must hold the same grid, images and permutation.

With --leaderboard one table, a line a network, the most invariant first: by group of transforms,
and accuracy, each with a 95 % interval over images. --sort takes a column's name.

With --by_class, of runs whose classes get operations of their own (config.augment.per_class):
accuracy class by class against the run that is alike but for that, with intervals; and where only
some classes get operations, the transfer of invariance to the others, in terms of a run with none.
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
        what = "compare the classes of runs that differ in config.augment.per_class"
        flags.DEFINE_bool("by_class", False, what, flag_values=values)
        what = "one line a network, with intervals over images"
        flags.DEFINE_bool("leaderboard", False, what, flag_values=values)
        what = f"the leaderboard's column to sort by: {', '.join(comparison.COLUMNS)}"
        flags.DEFINE_string("sort", comparison.OVERALL, what, flag_values=values)

    values, _, arguments = parsing.parse(argv, usage=_USAGE, define=define, takes_arguments=True)
    if not arguments:
        raise UserError("no result file given; expected compare RESULT.nc|DIR [...]")
    output = files.local_path(values.output, "--output") if values.output else None
    if values.by_class:
        _by_class([parsing.existing_folder(x, "compare's argument") for x in arguments], output)
        return
    found = load.read_files([files.local_path(each, "compare's argument") for each in arguments])
    for problem in found.problems:
        print(f"invariance-jax: {problem}", file=sys.stderr)
    if values.leaderboard:
        table = comparison.leaderboard(found.runs, measure=values.distance, sort=values.sort)
        print(comparison.leaderboard_text(table))
        if output:
            table.columns = [" ".join(each).removesuffix(" value") for each in table.columns]
            files.write_text(output, comparison.to_csv(table.rename_axis("network")))
        return
    compared = comparison.compare(found.runs, measure=values.distance)
    print(comparison.to_text(compared))
    if output:
        files.write_text(output, comparison.to_csv(compared))


def _by_class(folders: Sequence[pathlib.Path], output: pathlib.Path | None) -> None:
    import pandas as pd

    from invariance_jax.report import classes

    found = load.read(folders)
    for problem in found.problems:
        print(f"invariance-jax: {problem}", file=sys.stderr)
    compared, transfers = classes.differences(found), classes.transfers(found)
    if not (compared or transfers):
        raise UserError(
            "no two of the networks differ in config.augment.per_class alone; expected a run with "
            "it and its standard run, each with accuracy/*.nc or invariance/*.nc"
        )
    for each in compared:
        print(f"\n{classes.sentence(each)}\n{classes.summary(each).to_text()}")
        print(f"\n{classes.extremes(each).to_text()}")
    for each in transfers:
        print(f"\n{classes.transfer_sentence(each)}\n{classes.transfer_table(each).to_text()}")
    if output and compared:
        tables = {each.row.label: each.classes for each in compared}
        text = pd.concat(tables, names=["run"]).to_csv(float_format="%.6f", lineterminator="\n")
        files.write_text(output, text)
