"""Charts draw the tables' values in every layout, with one colour for a training everywhere."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from invariance_jax import data
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.report import charts, examples, frames, intervals, load, page, style, vega
from invariance_jax.report.rows import Network, Row
from invariance_jax.transforms import TRANSFORMS

LAYOUTS = ("page", "phone", "paper")


@pytest.fixture(scope="module")
def pictures(study):
    widths = {
        "a": [{"step": step, "width/rotate": 10.0 * step} for step in range(3)],
        "b": [{"step": 0, "loss": 1.0}, {"step": 2, "width/rotate": 5.0, "width/scale": 0.3}],
    }
    results = load.read([study.path])
    drawn = intervals.invariance(results.runs), intervals.accuracy(results.accuracy)
    found = page.pictures(results, *drawn, widths)
    return {picture.name: picture for picture in found}


def _row(training, model="a", details=""):
    kind = "untrained" if training == "untrained" else "trained"
    fields = {} if kind == "untrained" else {"augment": (training,)}
    network = Network(kind=kind, fields=fields, seed=0, parameters="", path=None)
    full = f"{training}, {details}" if details else training
    return Row(model=model, training=full, details=details, network=network, fields={})


def marks(spec):
    """All parts of a chart that draw, with what they inherit from those around them."""
    found = []

    def walk(part, inherited):
        encoding = inherited | part.get("encoding", {})
        if "mark" in part:
            mark = part["mark"]
            name = mark if isinstance(mark, str) else mark["type"]
            found.append({"mark": name, "encoding": encoding, "part": part})
        for kind in ("layer", "vconcat", "hconcat", "concat"):
            for each in part.get(kind, ()):
                walk(each, encoding)
        if isinstance(part.get("spec"), dict):
            walk(part["spec"], encoding)

    walk(spec, {})
    return found


def test_colours_do_not_depend_on_what_else_is_shown():
    few = style.colours([_row("none"), _row("translate")])
    names = ("untrained", "none", "flip", "translate", "random_resized_crop", "mixup", "cutmix")
    many = style.colours(_row(name, model) for name in names for model in ("a", "b"))
    assert few == {name: many[name] for name in few}
    assert len(set(many.values())) == len(names)
    red, green, blue = (many["untrained"][i : i + 2] for i in (1, 3, 5))
    assert red == green == blue
    # Less data has the same colour: a dash tells it apart.
    assert style.colours([_row("none", details="25% of data"), _row("none")]) == {
        "none": few["none"]
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_chart_draws_columns_that_its_table_has(pictures, layout):
    assert len(pictures) == 9
    for name, picture in pictures.items():
        spec = vega.to_spec(picture.draw(picture.frame, layout))
        drawn = marks(spec)
        assert drawn, name
        made = {"left", "right"}
        for each in drawn:
            for channel, said in each["encoding"].items():
                for one in said if isinstance(said, list) else [said]:
                    if "field" in one:
                        assert one["field"] in {*picture.frame, *made}, (name, channel)
                        assert channel.endswith("2") or "type" in one, (name, channel)


@pytest.mark.parametrize(
    ("name", "mark", "fields"),
    [
        ("sources", "point", {"color": "verdict", "shape": "verdict", "x": "transform"}),
        ("sources", "text", {"text": "change"}),
        ("accuracy_and_invariance", "point", {"x": "invariance", "y": "top1", "shape": "model"}),
        ("accuracy", "bar", {"x": "top1", "y": "training", "color": "augmentation"}),
        ("accuracy", "rule", {"x": "low", "x2": "high"}),
        ("heat_map", "rect", {"color": "value", "x": "transform", "y": "training"}),
        ("heat_map", "text", {"text": "value"}),
        ("by_magnitude", "line", {"x": "magnitude", "y": "median", "color": "augmentation"}),
        ("by_magnitude", "area", {"y": "q25", "y2": "q75"}),
        ("boxes_by_magnitude", "rule", {"y": "q05", "y2": "q95"}),
        ("boxes_by_magnitude", "bar", {"y": "q25", "y2": "q75"}),
        ("boxes_by_magnitude", "tick", {"y": "median"}),
        ("invariance_gap", "bar", {"x": "value", "y": "transform"}),
        ("small_translations", "bar", {"x": "q25", "x2": "q75"}),
        ("small_translations", "tick", {"x": "median"}),
        ("widths", "line", {"x": "step", "y": "value", "color": "run"}),
    ],
)
def test_marks_show_what_the_caption_says(pictures, name, mark, fields):
    picture = pictures[name]
    drawn = [
        m for m in marks(vega.to_spec(picture.draw(picture.frame, "page"))) if m["mark"] == mark
    ]
    assert any(
        all(
            each["encoding"].get(channel, {}).get("field") == field
            for channel, field in fields.items()
        )
        for each in drawn
    )


def test_phones_turn_what_is_wide(pictures):
    picture = pictures["heat_map"]
    wide, narrow = (
        marks(vega.to_spec(picture.draw(picture.frame, layout)))[0] for layout in ("page", "phone")
    )
    assert wide["encoding"]["x"]["field"] == narrow["encoding"]["y"]["field"] == "transform"
    assert wide["encoding"]["y"]["field"] == narrow["encoding"]["x"]["field"] == "training"


def test_a_page_lets_choose_what_paper_shows_side_by_side(pictures):
    for name in ("by_magnitude", "boxes_by_magnitude"):
        picture = pictures[name]
        page_spec, paper = (
            vega.to_spec(picture.draw(picture.frame, layout)) for layout in ("page", "paper")
        )
        bound = [
            p["bind"]["options"] for p in page_spec["params"] if isinstance(p.get("bind"), dict)
        ]
        assert sorted(map(len, bound)) == [2, 13] and ["resnet8", "vit_mu8"] in bound
        isolated = [p for p in page_spec["params"] if p.get("bind") == "legend"]
        assert isolated[0]["select"]["fields"] == ["augmentation"]
        assert "params" not in paper and paper["facet"]["field"] == "transform"


def test_what_else_differs_is_a_dash():
    frame = pd.DataFrame(
        {
            "row": ["a", "b"],
            "model": "m",
            "training": ["none", "none, 25% of data"],
            "augmentation": "none",
            "details": ["", "25% of data"],
            "transform": "rotate",
            "magnitude": 1,
            "value": 2.0,
            "unit": "degrees",
            **dict.fromkeys(frames.QUANTILES, 0.5),
        }
    )
    spec = vega.to_spec(charts.by_magnitude(frame, "page", colours={"none": "#000000"}))
    (line,) = [each for each in marks(spec) if each["mark"] == "line"]
    dash = line["encoding"]["strokeDash"]
    assert dash["field"] == "details" and dash["scale"]["domain"] == ["", "25% of data"]
    assert len(set(map(tuple, dash["scale"]["range"]))) == 2
    alone = vega.to_spec(charts.by_magnitude(frame[:1], "page", colours={"none": "#000000"}))
    (line,) = [each for each in marks(alone) if each["mark"] == "line"]
    assert "field" not in line["encoding"]["strokeDash"]


def test_files_are_the_same_each_time_and_hold_the_values(pictures):
    picture = pictures["accuracy"]
    chart = picture.draw(picture.frame, "paper")
    svg, pdf, png = (vega.save(chart, picture.frame, kind) for kind in ("svg", "pdf", "png"))
    assert svg == vega.save(chart, picture.frame, "svg") and svg.startswith(b"<svg")
    assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf
    assert png == vega.save(chart, picture.frame, "png")
    assert Image.open(io.BytesIO(png)).size[0] > 800
    text = svg.decode()
    assert "random" not in text and "translate" in text and "vit_mu8" in text
    assert style.colours([_row("translate")])["translate"].lower() in text.lower()


def test_rows_of_a_table_are_short_and_plain():
    frame = pd.DataFrame(
        {"a": [0.123456, np.nan, 2.0], "b": ["x", "y", "</script>"], "c": [1, 2, 3]}
    )
    found = vega.rows(frame)
    assert found == {"a": [0.1235, None, 2], "b": ["x", "y", "</script>"], "c": [1, 2, 3]}
    assert json.loads(json.dumps(found)) == found and isinstance(found["a"][2], int)


def test_what_is_repeated_stands_once_on_a_page():
    frame = pd.DataFrame({"a": ["x"] * 4 + ["y"] * 4, "b": range(8), "c": [np.nan] * 8})
    found = vega.packed(frame)
    assert found["a"] == {"of": ["x", "y"], "at": [0] * 4 + [1] * 4}
    assert found["b"] == list(range(8)) and found["c"] == {"of": [None], "at": [0] * 8}


def test_learned_widths_are_in_units_people_know(pictures):
    frame = pictures["widths"].frame
    assert frame["generator"].tolist() == ["rotate"] * 4 + ["scale"]
    assert frame["unit"].tolist() == ["degrees"] * 4 + ["smallest side fraction"]
    assert frame["value"].tolist() == [0, 10, 20, 5, 0.3]
    assert "At the end: a, rotate 20; b, rotate 5; b, scale 0.3." in pictures["widths"].alternative


def pixels(shown):
    encoded = re.fullmatch("data:image/webp;base64,(.+)", shown.uri)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_a_sheet_shows_the_images_in_order():
    levels = np.arange(130).reshape(13, 10) / 130
    images = np.broadcast_to(levels[:, :, None, None, None], (13, 10, 8, 8, 3))
    sheet = examples.sheet(images)
    assert sheet.titles[4] == "rotate (degrees)" and len(sheet.rows) == 13
    for line, row in zip(levels, sheet.rows, strict=True):
        for level, shown in zip(line, row, strict=True):
            assert abs(pixels(shown).mean() - 255 * level) < 4
            assert (shown.width, shown.height) == (8, 8)
    captions = [shown.caption for shown in sheet.rows[2]]
    assert captions[0] == "0" and captions[-1] == "224"
    large = examples.shown(np.zeros((200, 100, 3)), "x")
    assert (large.width, large.height) == (48, 96)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((13, 9, 4, 4, 3)), r"shape \(13, 9, 4, 4, 3\); expected \(13, 10"),
        (np.zeros((13, 10, 4, 4, 1)), "expected"),
        (np.full((13, 10, 4, 4, 3), 255.0), "255 to 255; expected 0 to 1"),
        (np.full((13, 10, 4, 4, 3), np.nan), "expected 0 to 1"),
    ],
)
def test_examples_of_another_shape_or_range_are_refused(images, words):
    with pytest.raises(UserError, match=words):
        examples.check(images)


# One size for both tests: one program.
SIZES = {"image_size": 64, "resize_size": 73, "canvas_size": 64}


def test_an_example_is_prepared_as_the_evaluation_does():
    config = ExperimentConfig().with_values(data={"name": "digits", **SIZES}).data
    (example,) = data.from_config(config, "validation[:1]", "eval.split")
    found = examples.transformed(examples.prepared(example, config))
    assert found.shape == (13, 10, 64, 64, 3)
    image = found[list(TRANSFORMS).index("rotate"), 0]
    # Whole grey levels, as Pillow gives them: what solarize compares with its thresholds.
    np.testing.assert_allclose(image * 255, np.round(image * 255), atol=1e-4)
    inverted = found[list(TRANSFORMS).index("solarize"), 9]
    np.testing.assert_allclose(inverted, 1 - image, atol=1e-6)


@pytest.mark.real_data
def test_real_photos_stay_in_range(real_data):
    config = ExperimentConfig().with_values(data={"data_dir": str(real_data / "tfds"), **SIZES})
    source = data.from_config(config.data, "validation[:40]", "eval.split")
    assert len(source) == 40
    for position in range(40):
        image = examples.prepared(source[position], config.data)
        examples.check(examples.transformed(image))
