"""Figures draw the tables' values, wide and narrow, with one colour for a training everywhere."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from invariance_jax import data
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.report import charts, examples, load, style, summaries
from invariance_jax.report.rows import Network, Row
from invariance_jax.transforms import TRANSFORMS


@pytest.fixture(scope="module")
def results(study):
    return load.read([study.path])


@pytest.fixture(scope="module")
def colours(results):
    return style.colours(run.row for run in results.runs)


def _row(training, model="a"):
    kind = "untrained" if training == "untrained" else "trained"
    fields = {} if kind == "untrained" else {"augment": (training,)}
    network = Network(kind=kind, fields=fields, seed=0, parameters="", path=None)
    return Row(model=model, training=training, network=network, fields={})


def test_colours_do_not_depend_on_what_else_is_shown():
    few = style.colours([_row("none"), _row("translate")])
    names = ("untrained", "none", "flip", "translate", "random_resized_crop", "mixup", "cutmix")
    many = style.colours(_row(name, model) for name in names for model in ("a", "b"))
    assert few == {name: many[name] for name in few}
    assert len(set(many.values())) == len(names)
    red, green, blue = (many["untrained"][i : i + 2] for i in (1, 3, 5))
    assert red == green == blue


@pytest.mark.parametrize(
    ("colour", "ink"), [((0, 0, 0), "white"), ((1, 1, 0), "black"), ((0.5, 0.5, 0.5), "black")]
)
def test_ink_contrasts_with_its_background(colour, ink):
    assert style.readable_on(colour) == ink


@pytest.mark.parametrize("narrow", [False, True])
def test_widths_are_lines_by_run_in_panels_by_generator(narrow):
    turned = [{"step": step, "width/rotate": 10.0 * step} for step in range(3)]
    both = [{"step": 0, "loss": 1.0}, {"step": 2, "width/rotate": 5.0, "width/scale": 0.3}]
    figure = charts.widths({"a": turned, "b": both}, narrow=narrow)
    rotate, scale = figure.axes
    assert [panel.get_ylabel() for panel in figure.axes] == ["degrees", "smallest side fraction"]
    lines = [line.get_xydata().tolist() for line in rotate.get_lines()]
    assert lines == [[[0, 0], [1, 10], [2, 20]], [[2, 5]]]
    (line,) = scale.get_lines()
    assert line.get_color() == rotate.get_lines()[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize(("narrow", "across"), [(False, 5), (True, 2)])
def test_lines_show_medians_and_interquartile_bands(results, colours, narrow, across):
    runs = [run for run in results.runs if run.row.model == "vit_mu8"]
    bands = summaries.over_seeds(summaries.quantiles(runs, charts.LEVELS))
    figure = charts.by_magnitude(bands, colours, narrow=narrow)
    panels = [panel for panel in figure.axes if panel.get_title(loc="left")]
    names = ["shear x", "shear y", "translate x"]
    assert [panel.get_title(loc="left") for panel in panels[:3]] == names
    assert len(panels) == 13
    assert panels[0].get_subplotspec().get_gridspec().ncols == across
    curves = {line.get_label(): line for line in panels[2].lines if line.get_label()[0] != "_"}
    assert list(curves) == ["untrained", "none", "translate"]
    middle = bands["mean"].sel(row="vit_mu8, none", transform="translate_x")
    np.testing.assert_array_equal(curves["none"].get_ydata(), middle.sel(quantile=0.5))
    band = panels[2].collections[1].get_paths()[0].vertices[:, 1]
    assert band.min() == middle.sel(quantile=0.25).min()
    assert band.max() == middle.sel(quantile=0.75).max()
    assert to_hex(curves["none"].get_color()) == colours["none"].lower()
    # Nothing that is drawn lies below 0 here.
    assert panels[2].get_ylim() == (-0.05, 1.05)
    assert panels[2].get_xlabel() == "pixels of 224"
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["0", "75", "149", "224"]
    # Magnitudes of both signs are sorted by size, and the axis says so.
    assert panels[4].get_xlabel() == "degrees, sorted by size"
    assert "−54" in [label.get_text() for label in panels[4].get_xticklabels()]  # noqa: RUF001
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == list(curves)
    assert legend.get_title().get_text() == "vit_mu8"


@pytest.mark.parametrize("narrow", [False, True])
def test_heat_map_colours_and_writes_every_value(results, narrow):
    table = summaries.invariance(results.runs)
    panels = [panel for panel in charts.sources(table, narrow=narrow).axes if panel.texts]
    for panel, model in zip(panels, ("resnet8", "vit_mu8"), strict=True):
        coloured = panel.images[0].get_array()
        expected = table["mean"].values[table["model"].values == model]
        np.testing.assert_allclose(coloured, expected.T if narrow else expected)
        for text in panel.texts:
            column, line = text.get_position()
            value = float(text.get_text().replace("\N{MINUS SIGN}", "-"))
            assert value == pytest.approx(coloured[line, column], abs=5.1e-3)
        assert len(panel.texts) == 3 * 13
        assert panel.get_ylabel() == model
        labels = panel.get_xticklabels() if narrow else panel.get_yticklabels()
        assert [label.get_text() for label in labels] == ["untrained", "none", "translate"]


@pytest.mark.parametrize("narrow", [False, True])
def test_bars_are_as_long_as_the_gap(results, colours, narrow):
    gap = summaries.invariance_gap(results.runs)
    figure = charts.invariance_gap(gap, colours, narrow=narrow)
    resnet, vit = figure.axes
    assert (resnet.get_position().x0 == vit.get_position().x0) == narrow
    assert resnet.get_xlim() == vit.get_xlim()
    for panel, model in ((resnet, "resnet8"), (vit, "vit_mu8")):
        for container, training in zip(panel.containers[::2], ("none", "translate"), strict=True):
            long = [bar.get_width() for bar in container]
            np.testing.assert_allclose(long, gap["mean"].sel(row=f"{model}, {training}"))
            assert to_hex(container[0].get_facecolor()) == colours[training].lower()


@pytest.mark.parametrize("narrow", [False, True])
def test_accuracy_bars_are_in_percent(results, colours, narrow):
    table = summaries.accuracy(results.accuracy)
    (panel,) = charts.accuracy(table, colours, narrow=narrow).axes
    long = [bar.get_width() for bar in panel.containers[0]]
    np.testing.assert_allclose(long, [10, 80, 90, 10, 70, 80])
    assert {"10.0", "80.0", "resnet8", "vit_mu8"} <= {text.get_text() for text in panel.texts}
    assert panel.get_xlabel() == "top-1 accuracy (%)"
    assert to_hex(panel.patches[1].get_facecolor()) == colours["none"].lower()


@pytest.mark.parametrize("narrow", [False, True])
def test_boxes_of_small_translations_are_over_images(results, colours, narrow):
    by_run = summaries.small_translation_by_image(results.runs)
    by_image, medians = summaries.over_seeds(by_run), summaries.over_seeds(by_run.median("image"))
    (panel,) = charts.small_translations(by_image, medians, colours, narrow=narrow).axes
    expected = np.quantile(by_run.values, [0.25, 0.75], axis=1).T
    boxes = [patch.get_path().vertices[:, 0] for patch in panel.patches]
    np.testing.assert_allclose([(box.min(), box.max()) for box in boxes], expected)
    assert "0.72" in [text.get_text() for text in panel.texts]


@pytest.mark.parametrize(
    ("narrow", "across", "magnitudes"), [(False, 2, range(10)), (True, 1, (1, 3, 5, 7, 9))]
)
def test_boxes_by_magnitude_draw_one_box_a_row(results, colours, narrow, across, magnitudes):
    table = summaries.over_seeds(summaries.quantiles(results.runs, charts.LEVELS))
    figure = charts.boxes_by_magnitude(table, ("rotate", "solarize"), colours, narrow=narrow)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        f"{transform}, {model}"
        for transform in ("rotate", "solarize")
        for model in ("resnet8", "vit_mu8")
    ]
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == across
    for panel, model in zip(figure.axes, ("resnet8", "vit_mu8") * 2, strict=True):
        assert len(panel.patches) == 3 * len(magnitudes)
        low, high = panel.get_xlim()
        # The boxes of the second row (none) begin at the lower quartile, each at its magnitude.
        for patch, magnitude in zip(panel.patches[len(magnitudes) :], magnitudes, strict=False):
            x, y = patch.get_path().vertices.T
            assert x.mean() == pytest.approx(magnitude, abs=0.1)
            assert low < x.min() and x.max() < high
            quartile = table["mean"].sel(row=f"{model}, none", transform="rotate", quantile=0.25)
            if panel.get_title(loc="left").startswith("rotate"):
                assert y.min() == quartile.isel(magnitude=magnitude)


@pytest.mark.parametrize(("narrow", "magnitudes"), [(False, range(10)), (True, (0, 2, 4, 6, 9))])
def test_examples_show_the_images_in_order(narrow, magnitudes):
    images = np.random.default_rng(0).random((13, 10, 4, 4, 3))
    (panel,) = examples.draw(images, narrow=narrow).axes
    expected = [images[row, column] for row in range(13) for column in magnitudes]
    np.testing.assert_array_equal([each.get_array() for each in panel.images], expected)
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
def test_examples_of_another_shape_or_range_are_refused(images, words):
    with pytest.raises(UserError, match=words):
        examples.check(images)


# One size for both tests: one program.
SIZES = {"image_size": 64, "resize_size": 73, "canvas_size": 64}


def test_an_example_is_prepared_as_the_evaluation_does():
    config = ExperimentConfig().with_values(data={"name": "digits", **SIZES}).data
    (example,) = data.from_config(config, "validation[:1]", "eval.split")
    found = examples.transformed(example, config)
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
        examples.check(examples.transformed(source[position], config.data))


def test_files_are_the_same_each_time_and_settings_are_local():
    def draw():
        with style.settings():
            figure = Figure(figsize=(2, 1))
            figure.subplots().plot([1, 2])
            return style.save(figure, "png"), style.save(figure, "pdf")

    assert draw() == draw()
    assert draw()[0].startswith(b"\x89PNG")
    assert draw()[1].startswith(b"%PDF")
    assert b"CreationDate" not in draw()[1]


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "pdf"])
def test_what_shows_figures_in_a_notebook_does_not_matter(backend):
    if backend != "pdf" and importlib.util.find_spec("matplotlib_inline"):
        pytest.skip("matplotlib_inline is installed here, so that nothing is in the way")
    script = (
        "import os, sys\n"
        "import invariance_jax.report\n"
        "import matplotlib  # as a chart does, before anything of ours\n"
        "from invariance_jax.report import style\n"
        f"assert os.environ.get('MPLBACKEND') == {None if ':' in backend else backend!r}\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "figure = style.Figure(figsize=(1, 1)); figure.subplots()\n"
        "assert style.save(figure, 'png')[1:4] == b'PNG'\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        f"assert {backend!r} != 'pdf' or matplotlib.rcParams['backend'] == 'pdf'\n"
    )
    environment = {**os.environ, "MPLBACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
