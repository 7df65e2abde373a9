#!/usr/bin/env python3
"""Runs the whole study of docs/results.md, or goes on with it: two CPU cores, two to three hours.

    launch/study.py --root=study --data_dir=~/tensorflow_datasets

Trains and measures the runs of configs/study/sweep.py; searches the factors of variation with both
networks; trains with what was found; measures on training images too, and networks of half of the
classes on all of them. At last ROOT/pages/results/report.html, and with --pack a small folder of
all results. Every step skips what is done.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

from invariance_jax.commands import sweep as sweeps
from invariance_jax.commands.sweep import Run
from invariance_jax.errors import UserError

LAUNCH = pathlib.Path(__file__).resolve().parent
SWEEP = "configs/study/sweep.py"
MODELS = ("resnet8", "vit_mu8")
# Measured on training images too: 200 images, as of validation.
_ON_TRAINING = ("none", "random_resized_crop_flip")
_TRAINING_IMAGES = "train[:1000]"
_SEARCH = (
    *("--config.search.pairs_per_class=64", "--config.search.checks_pairs=16"),
    "--config.search.checks_class_pairs=100",
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Args:
        argv: The flags.

    Returns:
        The flags; a mistake ends the program with code 2.
    """
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--root", type=pathlib.Path, required=True, help="folder of everything")
    add("--data_dir", required=True, help="folder of TFDS, with imagenet2012")
    add("--jobs", type=int, default=2, help="runs at once (default: 2)")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="networks (all)")
    add("--override", action="append", default=[], metavar="FIELD=VALUE", help="of all runs")
    add("--pack", type=pathlib.Path, help="where all results are packed")
    add("--dry_run", action="store_true", help="print the commands and run nothing")
    return parser.parse_args(argv)


def commands(values: argparse.Namespace) -> Iterator[list[str]]:
    """All steps, each made when those before it are done.

    Args:
        values: The flags.

    Yields:
        A command line.
    """
    root, program = values.root, [sys.executable, "-m", "invariance_jax"]
    overrides = [f"data.data_dir={values.data_dir}", *values.override]
    # What failed before is tried again, as when the disk was full.
    flags = ["--no_report", "--retry", *(f"--override={each}" for each in overrides)]
    sweep = [sys.executable, str(LAUNCH / "sweep.py")]
    shown: list[pathlib.Path] = []
    on_training: list[pathlib.Path] = []
    for model in values.models:
        every, half, of_search = (
            f"{SWEEP}:{x},{model}" for x in ("ablation", "half_of_classes", "per_class")
        )
        runs, halves = (_runs(each, root / "runs", overrides) for each in (every, half))
        for each in (every, half):
            yield [*sweep, each, f"--root={root / 'runs'}", f"--jobs={values.jobs}", *flags]
        shown += [run.workdir for run in runs]
        for each in halves:
            shown.append(root / "on_all_classes" / each.name)
            classes = f"--config.data.classes={runs[0].config.data.classes}"
            yield [*program, *_evaluate(each.workdir, shown[-1]), classes]
        whole = [run for run in runs if _is_whole(run)]
        for each in (run for run in whole if run.config.augment.name in _ON_TRAINING):
            more = [f"--config.eval.split={_TRAINING_IMAGES}"]
            more.append("--config.eval.measurements=('invariance',)")
            on_training.append(root / "training_images" / each.name)
            evaluate = _evaluate(each.workdir, on_training[-1])
            for kind in each.evaluate:
                yield [*program, *evaluate, *more, *(["--untrained"] * (kind == "untrained"))]
        (plain, *_) = (run for run in whole if run.config.augment.name == "none")
        yield [*program, "search", f"--workdir={plain.workdir}", *_SEARCH]
        (search, *_) = sorted(plain.workdir.glob("similarity_search/*.nc")) or ["SEARCH.nc"]
        place = root / f"per_class_{model}"
        yield [*sweep, f"{of_search},{search}", f"--root={place}", f"--jobs={values.jobs}", *flags]
        shown += [run.workdir for run in _runs(f"{of_search},{search}", place, overrides)]
    for folders, name in ((shown, "results"), (on_training, "training_images")):
        pack = [f"--pack={values.pack / name}"] if values.pack else []
        output = f"--output={root / 'pages' / name}"
        yield [*program, "report", *map(str, folders), output, *pack]


def _evaluate(workdir: pathlib.Path, output: pathlib.Path) -> list[str]:
    return ["evaluate", f"--workdir={workdir}", f"--output={output}"]


def _runs(file: str, root: pathlib.Path, overrides: Sequence[str]) -> list[Run]:
    sweep = sweeps.load(file)
    return sweeps.expand(
        sweep.with_values(overrides=(*sweep.overrides, *map(shlex.quote, overrides))), root
    )


def _is_whole(run: Run) -> bool:
    """Whether it was trained on all images, and nothing was learned beside the network."""
    return run.config.data.fraction == 1 and not run.config.augment.learned


def main(argv: Sequence[str]) -> int:
    """Runs the study.

    Args:
        argv: The command line.

    Returns:
        The first code that is not 0.
    """
    values = parse(argv)
    try:
        for command in commands(values):
            print(f"$ {shlex.join(command)}", flush=True)
            code = 0 if values.dry_run else subprocess.run(command, check=False).returncode
            if code:
                return code
    except UserError as error:
        print(f"launch/study.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
