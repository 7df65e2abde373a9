"""From a config to result files: what is there is not measured again, what is another is kept."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from invariance_jax import devices, models
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import driver, grid, results
from invariance_jax.evaluation.evaluate import evaluate, read_table
from invariance_jax.fields import check

from .conftest import CLASSES, SIDE, few, linear


@pytest.fixture(autouse=True)
def _few_transforms(monkeypatch):
    """A grid that compiles in a moment."""
    table = few("translate_x", "posterize")
    original = grid.Invariance.from_config.__func__
    monkeypatch.setattr(
        grid.Invariance,
        "from_config",
        classmethod(
            lambda cls, config: dataclasses.replace(original(cls, config), transforms=table)
        ),
    )


def config_with(**eval_fields):
    return check(
        ExperimentConfig,
        {
            "data": {
                "name": "digits",
                "validation_split": "validation[:7]",
                "image_size": SIDE,
                "resize_size": SIDE,
                "canvas_size": SIDE,
            },
            "eval": {"split": "validation[:5]", "per_device_batch_size": 4, **eval_fields},
        },
    )


class Watched:
    """Runs `evaluate` and keeps what it says and which images are read."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.said, self.runs = folder, [], []
        run = driver.Driver.run

        def watched(this, *arguments, **options):
            self.runs.append(tuple(each.name for each in this.measurements))
            return run(this, *arguments, **options)

        monkeypatch.setattr(driver.Driver, "run", watched)

    def __call__(self, config, model=None, *, name="net", **options):
        self.said, self.runs = [], []
        attributes = {"model": "linear", "augmentation": "none", "seed": 0, "steps": 3}
        evaluate(
            model or linear(),
            config,
            self.folder,
            name=name,
            attributes={**attributes, "seconds": 1.5, "config": config.to_json()},
            mesh=devices.make_mesh(1),
            announce=self.said.append,
            **options,
        )
        return self

    def files(self):
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def measure(tmp_path, monkeypatch):
    return Watched(tmp_path / "results", monkeypatch)


def test_results_are_written_shown_and_not_measured_again(measure):
    measure(config_with())
    assert measure.runs == [("accuracy",), ("invariance",)]  # one pass a split
    files = measure.files()
    assert sorted(files) == ["accuracy.csv", "accuracy/net.nc", "invariance/net.nc"]
    (row,) = read_table(measure.folder / "accuracy.csv")
    assert (row["dataset"], row["split"], row["images"]) == ("digits", "validation[:7]", "7")
    found = results.read(measure.folder / "invariance" / "net.nc")
    assert found.attrs["split"] == "validation[:5]" and found.sizes["image"] == 5
    assert found.attrs["padding_mode"] == "constant" and found.attrs["steps"] == 3
    assert json.loads(found.attrs["measurement"])["config.eval.seed"] == 0
    shown = measure.said
    assert shown[0].startswith("Accuracy: top-1 ") and shown[1] == results.summary(found)

    measure(config_with(per_device_batch_size=2, shard_size=3, memory=1))
    assert measure.runs == [] and measure.files() == files and measure.said == shown


def test_a_kill_right_after_a_result_is_written_loses_no_row_of_the_table(measure, monkeypatch):
    class Killed(BaseException):
        pass

    def write_and_die(*arguments):
        write(*arguments)
        raise Killed

    write = results.write
    with monkeypatch.context() as patch:
        patch.setattr(results, "write", write_and_die)
        with pytest.raises(Killed):
            measure(config_with(measurements=("accuracy",)))
    measure(config_with(measurements=("accuracy",)))
    assert measure.runs == []
    (row,) = read_table(measure.folder / "accuracy.csv")
    assert (row["model"], row["images"]) == ("linear", "7")


def test_one_pass_serves_both_where_the_splits_are_the_same(measure):
    measure(config_with(split="validation[:7]", local_equivariance=("hue",), test_time=("flip",)))
    names = ("accuracy", "invariance", "local_equivariance", "test_time")
    assert measure.runs == [names]
    assert (measure.folder / "test_time" / "net.csv").read_text().startswith("variant,label,images")


def test_another_measurement_is_kept_unless_it_may_be_replaced(measure):
    measure(config_with())
    before = measure.files()
    with pytest.raises(UserError, match=r"net\.nc holds .* \(its config\.eval\.seed differ\)"):
        measure(config_with(seed=4))
    with pytest.raises(UserError, match="its parameters_sha256 differ"):
        measure(config_with(), linear(seed=2))
    assert measure.files() == before and measure.runs == []
    measure(config_with(seed=4), overwrite=True)
    found = results.read(measure.folder / "invariance" / "net.nc")
    assert json.loads(found.attrs["measurement"])["config.eval.seed"] == 4


def test_percentiles_by_class_are_added_without_measuring(measure):
    measure(config_with())
    path = measure.folder / "invariance" / "net.nc"
    before = results.read(path)
    measure(config_with(per_class=True))
    assert measure.runs == [] and results.read(path).identical(before)
    by_class = results.read(path, "classes")
    assert by_class.images.sum() == 5
    assert by_class.class_name.values.tolist() == [str(x) for x in by_class["class"].values]


def test_a_measurement_is_asked_for_by_its_name_with_options(measure):
    text = "prediction_consistency(samples=3)"
    measure(config_with(measurements=(text,)))
    assert measure.runs == [("prediction_consistency",)]
    path = measure.folder / "prediction_consistency" / "net.nc"
    assert results.read(path).divergence.shape == (5,) and "KL " in measure.said[0]
    measure(config_with(measurements=(text,)))
    assert measure.runs == []
    with pytest.raises(UserError, match=r"its samples differ"):
        measure(config_with(measurements=("prediction_consistency(samples=4)",)))


@pytest.mark.parametrize(
    ("measurements", "message"),
    [
        (("acuracy",), r"^config\.eval\.measurements\[0\]: unknown measurement 'acuracy'; did you"),
        (
            ("accuracy", "prediction_consistency(smaples=3)"),
            r"^config\.eval\.measurements\[1\]: .* has no option 'smaples'; its options: ",
        ),
        (
            ("prediction_consistency(samples=1)",),
            r"^config\.eval\.measurements\[0\]: samples is 1; expected a whole number, at least 2",
        ),
        (
            ("prediction_consistency(augmentation='filp')",),
            r"measurements\[0\]: augmentation: unknown augmentation 'filp'; did you mean 'flip'",
        ),
    ],
)
def test_unknown_measurements_and_options_are_named(measure, measurements, message):
    with pytest.raises(UserError, match=message):
        measure(config_with(measurements=measurements))
    assert measure.runs == [] and not measure.folder.exists()


def test_one_image_cannot_be_compared(measure):
    message = r"config\.eval\.split is 'validation\[:1\]', which holds 1 images; expected at least"
    with pytest.raises(UserError, match=message):
        measure(config_with(split="validation[:1]", measurements=("invariance",)))
    assert measure.runs == []


@pytest.fixture
def photos(tmp_path):
    """A flat folder of three images, which nobody labelled."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_folder_of_unlabelled_images_gives_invariance_alone(measure, photos):
    config = config_with(split="all").with_values(
        data={"name": "folder", "data_dir": str(photos), "validation_split": "all"}
    )
    measure(config)
    assert measure.said[0] == "accuracy is left out: photos all has no labels"
    assert measure.runs == [("invariance",)]
    found = results.read(measure.folder / "invariance" / "net.nc")
    assert found.image.values.tolist() == ["0.png", "1.png", "2.png"]
    assert "flip" in found and "correct" not in found and "label" not in found.coords
    # Another folder is another measurement, though the config says "folder" of both.
    (photos / "2.png").rename(photos / "3.png")
    with pytest.raises(UserError, match="its names_sha256 differ"):
        measure(config)


def test_what_a_network_cannot_be_asked_is_left_out(measure):
    mean = models.from_function(lambda images: images.mean((1, 2)), name="mean")
    measure(config_with(measurements=("accuracy", "invariance", "prediction_consistency")), mean)
    assert measure.runs == [("invariance",)]
    assert [each for each in measure.said if "left out" in each] == [
        "accuracy is left out: mean gives no scores",
        "prediction_consistency is left out: mean gives no scores",
    ]
    model = dataclasses.replace(linear(), num_classes=CLASSES + 1)
    measure(config_with(measurements=("accuracy",)), model, name="eleven")
    assert measure.said == ["accuracy is left out: linear knows 11 classes, and digits has 10"]
    assert measure.runs == []
