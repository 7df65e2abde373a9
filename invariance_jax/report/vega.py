"""Vega-Lite: how every chart looks, and how it becomes a file or a part of a page.

A chart is described once, by Altair; its rows stand beside the description, under the name `table`,
so that a page can hold them once for several charts, offer them as CSV and show them in any size.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import vl_convert

from invariance_jax.report.altair import alt

# "page" for screens, with all that reacts; "phone" for narrow ones; "paper" for print: nothing
# reacts, so that what a page shows by choice stands side by side.
Layout = Literal["page", "phone", "paper"]
Kind = Literal["svg", "pdf", "png"]

TABLE = alt.NamedData("table")
# Pixels of CSS.
WIDTH: Mapping[Layout, int] = {"page": 1040, "phone": 340, "paper": 900}
_DIGITS = 4
_FONT = "Liberation Sans, Arial, sans-serif"
_RESOLUTION = 2.0
# Told apart on white and on black; the page replaces them by its own where it is dark.
INK, SOFT, LINE = "#1b1f24", "#57606a", "#d5dae0"


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network.

    Returns:
        JavaScript.
    """
    return vl_convert.javascript_bundle(vl_version=_version())


def _version() -> str:
    return alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]


def config(*, ink: str = INK, soft: str = SOFT, line: str = LINE) -> dict[str, Any]:
    """Colours and sizes of a chart.

    Args:
        ink: Of titles and labels.
        soft: Of axis titles.
        line: Of grids and frames.

    Returns:
        A Vega-Lite config.
    """
    words = {"labelColor": ink, "titleColor": soft, "labelFontSize": 11, "titleFontSize": 11}
    return {
        "font": _FONT,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {
            **words,
            **{"gridColor": line, "domainColor": line, "tickColor": line, "gridOpacity": 0.7},
            **{"titleFontWeight": "normal", "labelLimit": 260},
        },
        "legend": {
            **words,
            **{"symbolBaseFillColor": soft, "symbolBaseStrokeColor": soft, "symbolLimit": 0},
            **{"titleFontWeight": "normal", "labelLimit": 320},
        },
        "header": {"labelColor": ink, "titleColor": soft, "labelFontSize": 12},
        "title": {"color": ink, "fontSize": 13, "anchor": "start"},
        "text": {"color": ink},
        "rule": {"color": soft},
        "range": {"heatmap": {"scheme": "cividis"}},
    }


def to_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart's description, without its rows.

    Args:
        chart: What `draw` of a picture returned.

    Returns:
        Vega-Lite as JSON has it.
    """
    found = chart.to_dict()
    del found["config"]  # Altair's own sizes
    return found


def rows(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """A table as JSON has it, column by column.

    Args:
        frame: The table.

    Returns:
        Values by column: numbers rounded to four decimals, None where there is none.
    """
    return {name: _plain(frame[name]) for name in frame}


def _plain(column: pd.Series) -> list[Any]:
    if column.dtype.kind == "f":
        values = [None if np.isnan(x) else float(x) for x in column.round(_DIGITS)]
        return [int(x) if x is not None and x == int(x) else x for x in values]
    return column.tolist()


def packed(frame: pd.DataFrame) -> dict[str, Any]:
    """A table as a page holds it: what is repeated stands once.

    Args:
        frame: The table.

    Returns:
        By column its values, or {"of": the values that differ, "at": the place of each among
        them} where that is shorter.
    """
    found: dict[str, Any] = {}
    for name, values in rows(frame).items():
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        few = values and 4 * len(places) <= len(values)
        found[name] = {"of": list(places), "at": [places[x] for x in values]} if few else values
    return found


def save(chart: alt.TopLevelMixin, frame: pd.DataFrame, kind: Kind) -> bytes:
    """Draws a chart as a file.

    Args:
        chart: The chart.
        frame: Its rows.
        kind: "svg" or "pdf" for papers, "png" for pages.

    Returns:
        The file's bytes, the same each time but for the order of a PDF's objects.
    """
    columns = rows(frame)
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    spec = to_spec(chart) | {"datasets": {"table": records}, "config": config()}
    spec["background"] = "white"
    text, version = json.dumps(spec), _version()
    if kind == "svg":
        return vl_convert.vegalite_to_svg(text, vl_version=version).encode()
    if kind == "pdf":
        return vl_convert.vegalite_to_pdf(text, vl_version=version)
    return vl_convert.vegalite_to_png(text, vl_version=version, scale=_RESOLUTION)
