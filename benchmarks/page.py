r"""How large a report's page is, how soon its first chart shows, whether a reader can use it.

    python benchmarks/page.py

Pages of 8, 50 and 200 synthetic runs are written, opened in a headless Chromium (Debian's
`chromium`) at 1280 and 390 pixels, light and dark, and used: a transform is chosen, a value pointed
at, the legend clicked, a table filtered, sorted and copied. Nothing outside the file may be asked
for. Times are wall clock, medians of three; on a machine with other work they are too long.
"""

import argparse
import hashlib
import json
import pathlib
import statistics
import tempfile
import time
from typing import Any

import chromium
import fresh_process
import numpy as np
import xarray as xr

from invariance_jax.config import ExperimentConfig
from invariance_jax.report import load, page
from invariance_jax.transforms import TRANSFORMS

AUGMENTATIONS = ("none", "flip", "translate", "random_resized_crop", "random_resized_crop_flip")
MODELS = ("resnet18", "resnet50", "vit_s16", "vit_b16")
COUNTS = (8, 50, 200)
IMAGES, REPEATS = 200, 3
_FIRST = "performance.getEntriesByName('first chart')[0]?.startTime ?? 0"
# Notes when the first chart is drawn, before any script of the page runs.
_WATCH = (
    "new MutationObserver((_, me) => { if (document.querySelector('[data-drawn]')) {"
    "performance.mark('first chart'); me.disconnect(); } })"
    ".observe(document, {subtree: true, childList: true, attributes: true})"
)


def write_runs(folder: pathlib.Path, count: int) -> None:
    """Writes results of runs that were never made.

    Args:
        folder: Where.
        count: How many networks; seeds are added as needed.
    """
    rng = np.random.default_rng(0)
    points = [(m, a) for a in AUGMENTATIONS for m in MODELS[: 2 if count < 20 else 4]]
    for number in range(count):
        seed, place = divmod(number, len(points))
        model, augmentation = points[place]
        config = ExperimentConfig().with_values(
            seed=seed, model={"name": model}, augment={"name": augmentation}, train={"steps": 500}
        )
        attrs = {
            **{"model": model, "augmentation": augmentation, "seed": seed, "steps": 500},
            **{"dataset": "imagenet2012", "versions": "{}", "config": config.to_json()},
            **{"parameters_sha256": hashlib.sha256(f"{number}".encode()).hexdigest()},
            **{"seconds": 60.0, "domain": "pixel", "padding_mode": "constant"},
        }
        level = rng.uniform(0.2, 0.9, (13, 1, 1)) * np.linspace(1, 0.3, 10)[:, None]
        values = np.minimum(level + rng.normal(0, 0.1, (13, 10, IMAGES)), 1).astype(np.float32)
        names = ("transform", "magnitude", "image")
        grid = [transform.magnitudes for transform in TRANSFORMS.values()]
        images = [f"image{i}" for i in range(IMAGES)]
        invariance = xr.Dataset(
            {f"relative_invariance_{x}": (names, values) for x in ("cosine", "euclidean")}
            | {"correct": (names, rng.random(values.shape) < level)},
            {
                "transform": list(TRANSFORMS),
                "magnitude": np.arange(10),
                "magnitude_value": (names[:2], np.asarray(grid)),
                "unit": ("transform", [transform.unit for transform in TRANSFORMS.values()]),
                "image": images,
                "permutation": ("image", np.roll(np.arange(IMAGES), 1)),
            },
            attrs | {"split": "validation[:200]"},
        )
        hits = (rng.random(IMAGES) < rng.uniform(0.3, 0.8)).astype(np.int8)
        labels = {"image": images, "label": ("image", np.arange(IMAGES) % 20)}
        accuracy = xr.Dataset(
            dict.fromkeys(("correct_top1", "correct_top5"), ("image", hits)),
            labels,
            attrs | {"split": "validation"},
        )
        for kind, data in (("invariance", invariance), ("accuracy", accuracy)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            data.to_netcdf(folder / kind / f"{number}.nc", engine="h5netcdf")


def use(path: pathlib.Path) -> dict[str, Any]:
    """Uses a page as a reader would.

    Args:
        path: The page.

    Returns:
        What was seen; every value of "works" should be true.
    """
    works: dict[str, bool] = {}
    with chromium.Page() as browser:
        browser.open(path)
        figure = "document.querySelector('#by_magnitude')"
        browser.run(f"{figure}.scrollIntoView()")
        browser.wait(f"{figure}.querySelector('[data-drawn]') !== null")
        time.sleep(1)  # charts above are drawn too, and move this one
        browser.run(f"{figure}.scrollIntoView()")
        marks = f"{figure}.querySelector('.chart svg').innerHTML"
        before = browser.run(marks)
        choose = f"{figure}.querySelectorAll('select')[0]"
        browser.run(f"{choose}.selectedIndex = 4; {choose}.dispatchEvent(new Event('change'))")
        time.sleep(0.5)
        works["a transform can be chosen"] = browser.run(marks) != before
        place = browser.run(
            f"(() => {{ const r = {figure}.querySelectorAll('.mark-symbol.role-mark path')[5]"
            ".getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        browser.mouse(*place)
        browser.mouse(place[0] + 1, place[1])
        time.sleep(0.5)
        tip = "document.querySelector('#vg-tooltip-element')"
        works["values are shown"] = "median" in (browser.run(f"{tip}?.textContent") or "")
        before = browser.run(marks)
        place = browser.run(
            f"(() => {{ const r = {figure}.querySelector('.role-legend-symbol path')"
            ".getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        browser.click(*place)
        time.sleep(0.5)
        works["the legend isolates"] = browser.run(marks) != before
        table = "document.querySelector('.numbers')"
        shown = f"[...{table}.querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
        first = browser.run(f"{shown}[0].textContent")
        every = browser.run(f"{shown}.length")
        browser.run(f"{table}.querySelectorAll('th button')[3].click()")
        works["tables sort"] = browser.run(f"{shown}[0].textContent") != first
        field = f"{table}.querySelector('input')"
        browser.run(f"{field}.value = 'translate'; {field}.dispatchEvent(new Event('input'))")
        works["tables filter"] = 0 < browser.run(f"{shown}.length") < every
        for form, sign in (("csv", ","), ("markdown", "| --- |"), ("latex", "\\toprule")):
            button = f"{table}.querySelector('button[data-form={form}]')"
            browser.run(f"{button}.click()")
            browser.wait(f"{button}.dataset.copied !== undefined")
            works[f"copied as {form}"] = sign in browser.run(f"{button}.dataset.copied")
        outside = [each for each in browser.requests if not each.startswith(("file:", "data:"))]
        works["nothing is asked outside the file"] = not outside and len(browser.requests) > 0
        works["no script complains"] = not browser.errors
    for width in (1280, 390):
        for dark in (False, True):
            with chromium.Page(width, dark=dark) as browser:
                browser.open(path)
                browser.run(
                    "document.querySelectorAll('figure[data-chart]').forEach((x) => "
                    "x.scrollIntoView())"
                )
                browser.wait("document.querySelector('[data-drawn]') !== null")
                wide = browser.run("document.documentElement.scrollWidth <= innerWidth")
                works[f"fits {width} pixels, {'dark' if dark else 'light'}"] = wide
    return works


def first_chart(path: pathlib.Path) -> float:
    """Seconds from opening a page to its first chart, median.

    Args:
        path: The page.

    Returns:
        Seconds.
    """
    found = []
    for _ in range(REPEATS):
        with chromium.Page() as browser:
            browser.before_scripts(_WATCH)
            browser.open(path)
            browser.wait(f"({_FIRST}) > 0")
            found.append(browser.run(_FIRST) / 1000)
    return statistics.median(found)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=pathlib.Path, help="file of the result")
    values = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            place = pathlib.Path(folder) / str(count)
            write_runs(place, count)
            begin = time.monotonic()
            results = load.read([place])
            read = time.monotonic()
            path = page.write(results, place, figures=False)
            seconds = {"read_seconds": read - begin, "page_seconds": time.monotonic() - read}
            row = {"runs": count, "megabytes": path.stat().st_size / 1e6, **seconds}
            row["first_chart_seconds"] = first_chart(path)
            rows.append(row)
            print({name: round(value, 2) for name, value in row.items()}, flush=True)
        works = use(pathlib.Path(folder) / "8" / "report.html")
    for what, well in works.items():
        print(f"{'yes' if well else 'NO '}  {what}")
    path = fresh_process.results_file("page", "cpu", values.out)
    path.write_text(json.dumps({"pages": rows, "works": works}, indent=2) + "\n")
    if not all(works.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
