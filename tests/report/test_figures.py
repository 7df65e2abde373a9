"""Figures draw the tables' values, with the same colour for one training everywhere."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from invariance_jax.errors import UserError
from invariance_jax.report import (
    album,
    figure_bars,
    figure_boxes,
    figure_examples,
    figure_heat_map,
    figure_lines,
    load,
    style,
    summaries,
)
from invariance_jax.report.rows import Row


@pytest.fixture(scope="module")
def results(study):
    return load.read([study.path])


@pytest.fixture(scope="module")
def look(results):
    return style.look(run.row for run in results.runs)


def test_colours_do_not_depend_on_what_else_is_shown():
    few = style.look([Row("a", "none"), Row("a", "translate")])
    names = ("untrained", "none", "flip", "translate", "random_resized_crop", "mixup", "cutmix")
    many = style.look(Row(model, name) for name in names for model in ("a", "b"))
    assert few.colours == {name: many.colours[name] for name in few.colours}
    assert len(set(many.colours.values())) == len(names)
    red, green, blue = (many.colours["untrained"][i : i + 2] for i in (1, 3, 5))
    assert red == green == blue
    assert many.lines["a"] != many.lines["b"]
    assert many.hatches["a"] != many.hatches["b"]


@pytest.mark.parametrize(
    ("colour", "ink"), [((0, 0, 0), "white"), ((1, 1, 0), "black"), ((0.5, 0.5, 0.5), "black")]
)
def test_ink_contrasts_with_its_background(colour, ink):
    assert style.readable_on(colour) == ink


def test_lines_show_medians_and_interquartile_bands(results, look):
    bands = summaries.over_seeds(summaries.quantiles(results.runs))
    grid = results.runs[0].data
    figure = figure_lines.by_magnitude(bands, grid, "vit_mu8", look, columns=5, width=11)
    panels = [panel for panel in figure.axes if panel.get_title()]
    assert [panel.get_title() for panel in panels[:3]] == ["shear x", "shear y", "translate x"]
    assert len(panels) == 13
    curves = {line.get_label(): line for line in panels[2].lines if line.get_label()[0] != "_"}
    assert list(curves) == ["untrained", "none", "translate"]
    middle = bands["mean"].sel(row="vit_mu8, none", transform="translate_x")
    np.testing.assert_array_equal(curves["none"].get_ydata(), middle.sel(quantile=0.5))
    band = panels[2].collections[1].get_paths()[0].vertices[:, 1]
    assert band.min() == middle.sel(quantile=0.25).min()
    assert to_hex(curves["none"].get_color()) == look.colours["none"].lower()
    assert curves["none"].get_linestyle() == look.lines["vit_mu8"]
    assert panels[2].get_xlabel() == "pixels of 224"
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["0", "75", "149", "224"]
    # Magnitudes of both signs are sorted by size, and the axis says so.
    assert panels[4].get_xlabel() == "degrees, sorted by size"
    assert "−54" in [label.get_text() for label in panels[4].get_xticklabels()]  # noqa: RUF001


@pytest.mark.parametrize("draw", [figure_heat_map.sources, figure_heat_map.sources_narrow])
def test_heat_map_colours_and_writes_every_value(results, draw):
    table = summaries.invariance(results.runs)
    panels = [panel for panel in draw(table).axes if panel.texts]
    for panel, model in zip(panels, ("resnet8", "vit_mu8"), strict=True):
        coloured = panel.images[0].get_array()
        expected = table["mean"].values[table["model"].values == model]
        np.testing.assert_allclose(coloured, expected if len(coloured) == 3 else expected.T)
        for text in panel.texts:
            column, line = text.get_position()
            value = float(text.get_text().replace("\N{MINUS SIGN}", "-"))
            assert value == pytest.approx(coloured[line, column], abs=5.1e-3)
        assert len(panel.texts) == 3 * 13


@pytest.mark.parametrize("narrow", [False, True])
def test_bars_are_as_long_as_the_gap(results, look, narrow):
    gap = summaries.invariance_gap(summaries.invariance(results.runs))
    figure = figure_bars.invariance_gap(gap, look, narrow=narrow)
    resnet, vit = figure.axes
    for panel, model in ((resnet, "resnet8"), (vit, "vit_mu8")):
        for container, training in zip(panel.containers[::2], ("none", "translate"), strict=True):
            long = [bar.get_width() if narrow else bar.get_height() for bar in container]
            np.testing.assert_allclose(long, gap["mean"].sel(row=f"{model}, {training}"))
            assert to_hex(container[0].get_facecolor()) == look.colours[training].lower()


def test_accuracy_bars_are_in_percent(results, look):
    table = summaries.accuracy(results.accuracy)
    (panel,) = figure_bars.accuracy(table, look, width=6).axes
    long = [bar.get_width() for bar in panel.containers[0]]
    np.testing.assert_allclose(long, [10, 80, 90, 10, 70, 85])
    assert {"10.0", "80.0", "resnet8", "vit_mu8"} <= {text.get_text() for text in panel.texts}
    assert panel.get_xlabel() == "top-1 accuracy (%)"


def test_boxes_of_small_translations_are_over_images(results, look):
    by_run = summaries.small_translation_by_image(results.runs)
    by_image, medians = summaries.over_seeds(by_run), summaries.over_seeds(by_run.median("image"))
    (panel,) = figure_boxes.small_translations(by_image, medians, look, width=6).axes
    expected = np.quantile(by_run.values, [0.25, 0.75], axis=1).T
    boxes = [patch.get_path().vertices[:, 0] for patch in panel.patches]
    np.testing.assert_allclose([(box.min(), box.max()) for box in boxes], expected)


@pytest.mark.parametrize(("narrow", "panels", "boxes"), [(False, 2, 60), (True, 4, 15)])
def test_boxes_by_magnitude_draw_one_box_a_row(results, look, narrow, panels, boxes):
    table = summaries.over_seeds(summaries.quantiles(results.runs, figure_boxes.LEVELS))
    names = ("rotate", "solarize")
    grid = results.runs[0].data
    figure = figure_boxes.by_magnitude(table, grid, names, look, narrow=narrow)
    assert [len(panel.patches) for panel in figure.axes] == [boxes] * panels


def test_examples_show_the_images_in_order(results):
    images = np.random.default_rng(0).random((13, 10, 4, 4, 3))
    grid = results.runs[0].data
    (panel,) = figure_examples.examples(images, grid).axes
    assert len(panel.images) == 130
    np.testing.assert_array_equal(panel.images[37].get_array(), images[3, 7])
    assert {"translate x", "degrees", "224"} <= {text.get_text() for text in panel.texts}


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((13, 9, 4, 4, 3)), r"shape \(13, 9, 4, 4, 3\); expected \(13, 10"),
        (np.zeros((13, 10, 4, 4, 1)), "expected"),
        (np.full((13, 10, 4, 4, 3), 255.0), "255 to 255; expected 0 to 1"),
        (np.full((13, 10, 4, 4, 3), np.nan), "expected 0 to 1"),
    ],
)
def test_examples_of_another_shape_or_range_are_refused(results, images, words):
    with pytest.raises(UserError, match=words):
        album.pictures(results, images)


def test_files_are_the_same_each_time_and_settings_are_local():
    def draw():
        with style.settings():
            figure = Figure(figsize=(2, 1))
            figure.subplots().plot([1, 2])
            return style.save_png(figure), style.save_pdf(figure)

    assert draw() == draw()
    assert draw()[0].startswith(b"\x89PNG")
    assert draw()[1].startswith(b"%PDF")
    assert b"CreationDate" not in draw()[1]
