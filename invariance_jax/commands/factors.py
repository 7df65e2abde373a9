"""`factors`: what a similarity search says, as tables and CSV files."""

import pathlib
from collections.abc import Sequence
from typing import get_args

import pandas as pd
from absl import flags

from invariance_jax import files
from invariance_jax.commands import parsing
from invariance_jax.errors import UserError
from invariance_jax.factors import alignment, foreground, rankings, wordnet
from invariance_jax.report import factors, load
from invariance_jax.report.tables import Table

_USAGE = """\
usage: invariance-jax factors SEARCH.nc [RESULT.nc|DIR ...] [--senses=wnid] [--boxes=PATH]
           [--classes=NAME,...] [--ranking=percent_change] [--rescale=zoom_in] [--output=DIR]

Ranks the rows of a search over its classes and says whether they are mostly appearance, beside the
base rate of the rows searched. With result files of the invariance (of a DIR: DIR/invariance/*.nc)
of the network that searched and of its untrained self: whether training made it invariant to those
transforms. They must hold the same grid and images. With --senses: whether like classes in WordNet
have like rankings. With --boxes: how the object's place and size vary. --output gets CSV files.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags and files.

    Raises:
        UserError: A file is missing, damaged or does not fit the search, or a name is unknown.
    """

    def define(values: flags.FlagValues) -> None:
        def choice(name: str, default: str | None, choices: object, what: str) -> None:
            flags.DEFINE_enum(name, default, list(get_args(choices)), what, flag_values=values)

        choice("ranking", "proportion_boosted", rankings.By, "what rows are ranked by")
        what = "what rescale is compared with; zoom_in: as in the paper's code, always that"
        choice("rescale", "by_direction", alignment.Rescale, what)
        what = "compare classes in WordNet by their ids, or as the paper's code by a first sense"
        choice("senses", None, wordnet.Senses, what)
        flags.DEFINE_list("classes", [], "names or numbers of classes", flag_values=values)
        flags.DEFINE_string("output", None, "where CSV files go", flag_values=values)
        parsing.define_boxes(values)

    values, _, arguments = parsing.parse(argv, usage=_USAGE, define=define, takes_arguments=True)
    if not arguments:
        raise UserError("no search given; expected factors SEARCH.nc [RESULT.nc|DIR ...]")
    path, *others = (pathlib.Path(each).expanduser() for each in arguments)
    runs = load.read_files(others).runs if others else ()
    boxes = None
    if values.boxes:
        boxes = foreground.read(files.local_path(values.boxes, "--boxes"), values.boxes_image_size)
    (search,) = factors.read([path], runs)
    search = factors.of_classes(search, values.classes)
    shown: dict[str, Table] = {
        search.scope: factors.ranking(search, values.ranking),
        "Share of appearance among the first rows": factors.appearance(search),
    }
    saved = {"rankings": _rankings(search), "appearance": _appearance(search)}
    if others:
        found = factors.align(search, runs, values.rescale)
        shown["Most boosted rows whose invariance gap is positive"] = factors.aligned(
            {search.title: found}
        )
        scalars = {name: value for name, value in found._asdict().items() if name != "slots"}
        saved["alignment"] = pd.DataFrame([scalars])
        saved["alignment_transforms"] = found.slots.to_dataframe("slots").reset_index()
    if values.senses:
        pairs = wordnet.specificity(search.statistics, senses=values.senses)
        shown["Rankings of similar and of different classes"] = factors.specific(pairs)
        saved["specificity"] = wordnet.summary(pairs)
        saved["specificity_pairs"] = pairs.to_dataframe()
    if boxes is not None:
        saved["foreground"] = foreground.spread(boxes).reset_index()
        shown["Foreground"] = factors.spread(saved["foreground"].set_index("class_name"))
    for title, table in shown.items():
        print(f"\n{title}\n{table.to_text()}")
    for name, frame in saved.items() if values.output else ():
        text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        files.write_text(files.local_path(values.output, "--output") / f"{name}.csv", text)


def _rankings(search: factors.Search) -> pd.DataFrame:
    """Every class, and the mean over classes, with its rows in both orders."""
    statistics = search.statistics
    names = ["proportion_boosted", "mean_percent_change", "pairs"]
    table = statistics[names].to_dataframe().reset_index()
    for by in get_args(rankings.By):
        table[f"place_by_{by}"] = rankings.order(statistics, by).argsort(axis=1).reshape(-1) + 1
    return table


def _appearance(search: factors.Search) -> pd.DataFrame:
    return pd.DataFrame(
        {"which": which, "ranked_by": by, **share._asdict()}
        for which, by, share in factors.shares(search)
    )
