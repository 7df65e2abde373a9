"""`report`: one page from the results of any number of runs."""

import json
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from invariance_jax import data, files
from invariance_jax.commands import parsing
from invariance_jax.errors import UserError
from invariance_jax.report import charts, examples, load, pack, page, summaries, tables
from invariance_jax.report.entries import Pairs, Results
from invariance_jax.report.rows import shortest_paths
from invariance_jax.training.metrics import METRICS_FILE, read_metrics

_USAGE = """\
usage: invariance-jax report DIR [DIR ...] [--output=DIR] [--pack=DIR] [--boxes=PATH]

Reads invariance/*.nc, accuracy/*.nc and similarity_search/*.nc of every DIR (workdirs of evaluated
runs, or of quickstart; of the first version accuracy.csv) and writes report.html and figures/ to
--output, by default the first DIR. Runs are told apart by the fields in which their configs differ.
With --pack the results that it shows are packed into a small folder, of which `report` makes the
same page. With --boxes, boxes of objects or masks, it shows how the foreground varies.
"""


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: Its flags and folders.
    """

    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("output", None, "where the page goes", flag_values=values)
        what = "a folder: also write what the page shows there, small enough to be shared"
        flags.DEFINE_string("pack", None, what, flag_values=values)
        parsing.define_boxes(values)

    values, _, arguments = parsing.parse(argv, usage=_USAGE, define=define, takes_arguments=True)
    if not arguments:
        raise UserError("no folder given; expected report DIR [DIR ...]")
    folders = [parsing.existing_folder(each, "report's argument") for each in arguments]
    output = files.local_path(values.output, "--output") if values.output else folders[0]
    boxes = files.local_path(values.boxes, "--boxes") if values.boxes else None
    packed = files.local_path(values.pack, "--pack") if values.pack else None
    write(folders, output, boxes=boxes, image_size=values.boxes_image_size, packed=packed)


def _learned(
    folders: Sequence[pathlib.Path],
) -> dict[pathlib.Path, list[dict[str, float | None]]]:
    """Learned widths at every step that was logged, of runs and of those that are packed."""
    found = {}
    for folder in folders:
        for each in (folder, *sorted(folder.glob("runs/*"))):
            lines = read_metrics(each)
            names = charts.width_names({"": lines})
            if names:
                found[each] = [
                    {name: line[name] for name in ("step", *names)}
                    for line in lines
                    if names[0] in line
                ]
    return found


def _beside(
    found: Results, learned: Mapping[pathlib.Path, Sequence[Mapping[str, float | None]]]
) -> dict[pathlib.Path, dict[str, str]]:
    """Small files that lie in the folders of runs and that a report reads."""
    from invariance_jax.factors.per_class import LIST

    texts: dict[pathlib.Path, dict[str, str]] = {}
    for folder, lines in learned.items():
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        texts.setdefault(folder, {})[METRICS_FILE] = text
    for each in (*found.runs, *found.accuracy):
        folder = each.network.path.parents[1]
        if (folder / LIST).is_file():
            texts.setdefault(folder, {})[LIST] = (folder / LIST).read_text(encoding="utf-8")
    return texts


def write(
    folders: Sequence[pathlib.Path],
    output: pathlib.Path,
    *,
    boxes: pathlib.Path | None = None,
    image_size: float | None = None,
    packed: pathlib.Path | None = None,
) -> None:
    """Writes the page and prints its tables.

    Args:
        folders: Where the results are.
        output: Where the page goes.
        boxes: Boxes of objects or masks, as `factors.foreground.read` takes them.
        image_size: Side of the images of a CSV file of boxes, in pixels.
        packed: Where the results are packed too.
    """
    found = load.read(folders)
    notes, image, blocks, judged, pairs = [], found.example, [], {}, {}
    if found.searches or boxes:
        blocks, judged, pairs = _factors(found, boxes, image_size, notes)
    classes = _classes(found, notes)
    learned = _learned(folders)
    names = shortest_paths(map(str, learned))
    widths = {names[str(folder)]: lines for folder, lines in learned.items()}
    if found.accuracy:
        print(f"\n{tables.accuracy(found.accuracy).to_text()}")
    if found.runs:
        print(f"\n{tables.invariance(summaries.grouped_invariance(found.runs)).to_text()}")
    if found.runs and image is None:
        config = found.runs[0].config
        try:
            source = data.from_config(config.data, config.eval.split, "eval.split")
            image = examples.prepared(source[0], config.data)
        except Exception as error:  # whatever a data set raises: the page does without it
            notes.append(f"no picture of the transforms: {error}")
    for problem in (*found.problems, *notes):
        print(f"invariance-jax: {problem}", file=sys.stderr)
    if packed:
        pack.write(found, packed, _beside(found, learned), image, pairs)
    words = ["invariance-jax", "report", *map(str, folders), f"--output={output}"]
    words += [f"--boxes={boxes}"] if boxes else []
    words += [f"--boxes_image_size={image_size:g}"] if image_size else []
    command = shlex.join(words)
    path = page.write(
        found,
        output,
        example=None if image is None else examples.transformed(image),
        classes=classes,
        factors=blocks,
        judged=judged,
        widths=widths,
        notes=notes,
        command=command,
    )
    print(f"\nreport: {path}")


def _classes(found: Results, notes: list[str]) -> list[page.Block]:
    """The section on classes."""
    from invariance_jax.report import class_section

    try:
        return list(class_section.blocks(found))
    except UserError as error:
        notes.append(f"nothing on single classes: {error}")
        return []


def _factors(
    found: Results, boxes: pathlib.Path | None, image_size: float | None, notes: list[str]
) -> tuple[list[page.Block], dict[str, dict[str, Any]], dict[str, Pairs]]:
    """The section on factors of variation; what it needs is loaded only where there is one."""
    from invariance_jax.factors import foreground
    from invariance_jax.report import factor_section, factors

    read = (str(boxes), foreground.read(boxes, image_size)) if boxes else None
    searches, pairs, kept = factors.read(found.searches, found.runs), {}, {}
    for search in searches:
        print(f"\n{search.scope}\n{factors.ranking(search).to_text()}")
        print(f"\n{factors.appearance(search).to_text()}")
        if known := found.pairs.get(search.path.name):
            pairs[search.title] = kept[search.path.name] = known
            continue
        try:
            pairs[search.title] = kept[search.path.name] = factor_section.examples(search)
        except Exception as error:  # whatever a data set raises: the page does without them
            notes.append(f"no pictures of pairs for {search.title}: {error}")
    blocks = list(factor_section.blocks(searches, found.runs, pairs=pairs, boxes=read))
    return blocks, factor_section.judged(searches, found.runs), kept
