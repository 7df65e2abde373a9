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
       invariance-jax compare --by_class|--class_effects DIR DIR [...] [--output=FILE.csv]
       invariance-jax compare --factors=FILE|--real=FILE DIR [...] [--output=FILE.csv]

Prints, for every transform and result file (of a DIR: DIR/invariance/*.nc), the median relative
invariance, the share of predictions that the transform changes and the accuracy under it, each over
magnitudes 3 to 7; and the invariance gap of trained networks whose untrained self is among the
files. The files must hold the same grid, images and permutation.

With --leaderboard one table, a line a network, the most invariant first: by group of transforms,
and accuracy, each with a 95 % interval over images. --sort takes a column's name.

With --by_class, of runs whose classes get operations of their own (config.augment.per_class):
accuracy class by class against the run that is alike but for that, with intervals; and where only
some classes get operations, the transfer of invariance to the others, in terms of a run with none.

With --class_effects, what training with the standard augmentation costs each class, against the
best of runs that differ in the augmentation alone, as crops of other scales (arXiv 2401.01764).

With --factors, how much likelier errors are where a factor is active in an image, of a CSV or
JSON lines with file_name and a column of 0 and 1 a factor, as ImageNet-X has them; with --real,
accuracy where any of several classes is right, of a JSON of lists, as ReaL has them. Both with 95 %
intervals over images, from DIR/accuracy/*.nc.
"""

_OF_ACCURACY = ("class_effects", "factors", "real")


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
        what = "what standard augmentation costs each class, against the best other one"
        flags.DEFINE_bool("class_effects", False, what, flag_values=values)
        what = "error ratios of the factors of images that this file lists"
        flags.DEFINE_string("factors", None, what, flag_values=values)
        what = "accuracy by the several right classes of images that this file lists"
        flags.DEFINE_string("real", None, what, flag_values=values)
        what = "one line a network, with intervals over images"
        flags.DEFINE_bool("leaderboard", False, what, flag_values=values)
        what = f"the leaderboard's column to sort by: {', '.join(comparison.COLUMNS)}"
        flags.DEFINE_string("sort", comparison.OVERALL, what, flag_values=values)

    values, _, arguments = parsing.parse(argv, usage=_USAGE, define=define, takes_arguments=True)
    if not arguments:
        raise UserError("no result file given; expected compare RESULT.nc|DIR [...]")
    output = files.local_path(values.output, "--output") if values.output else None
    chosen = [x for x in (*_OF_ACCURACY, "by_class", "leaderboard") if values[x].value]
    if len(chosen) > 1:
        raise UserError(f"--{chosen[0]} and --{chosen[1]} are both given; expected one of them")
    if chosen and chosen[0] in _OF_ACCURACY:
        folders = [parsing.existing_folder(x, "compare's argument") for x in arguments]
        _of_accuracy(chosen[0], values[chosen[0]].value, folders, output)
        return
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


def _of_accuracy(
    table: str, file: str | bool, folders: Sequence[pathlib.Path], output: pathlib.Path | None
) -> None:
    from invariance_jax.report import robustness

    found = load.read(folders)
    for problem in found.problems:
        print(f"invariance-jax: {problem}", file=sys.stderr)
    if table == "class_effects":
        made = robustness.class_effects(found.accuracy)
        print(robustness.class_effects_text(made))
    elif table == "factors":
        read = robustness.read_factors(files.local_path(str(file), "--factors"))
        made = robustness.by_factor(found.accuracy, read)
        print(robustness.factors_text(made))
    else:
        read = robustness.read_real(files.local_path(str(file), "--real"))
        made = robustness.real_accuracy(found.accuracy, read)
        print(robustness.real_text(made))
    if output:
        files.write_text(output, made.to_csv(float_format="%.6f", lineterminator="\n"))


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
