"""The search on planted images, against a plain loop, in batches, on devices, after a kill."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment, config, data, models
from invariance_jax.errors import UserError
from invariance_jax.factors import changes, pairs, rows, statistics
from invariance_jax.factors.search import SimilaritySearch
from invariance_jax.factors.statistics import of_search
from invariance_jax.transforms import AUTOAUGMENT

from ..evaluation.conftest import (
    SIDE,
    claimed,
    counted,
    linear,
    make_driver,
    measured,
    pixels_of,
)

# A copy, a row that changes no image, one that changes only some, two signed ones, a sequence.
NAMES = (
    *("equalize 3", "color 0", "solarize 2", "brightness 9", "shear_x 9", "equalize 5"),
    *("rotate 9", "brightness 5 + translate_x 3"),
)
ROWS = tuple(map(rows.Row.parse, NAMES))
SEED = 5


def coloured(count=21, classes=3):
    """Noise around a colour of each image's own, without bright pixels in some; classes mixed."""
    generator = np.random.default_rng(0)
    colour = generator.integers(20, 190, (count, 1, 1, 3))
    pixels = (colour + generator.integers(0, 60, (count, SIDE, SIDE, 3))).astype(np.uint8)
    labels = generator.permutation(np.arange(count) % classes)
    names = [f"image_{i}" for i in range(count)]
    return data.ArraySource(pixels, labels, names, class_names=["a", "b", "c"])


def search(**fields):
    return SimilaritySearch(**{"rows": ROWS, "mode": "named", "batch": 4, "seed": SEED, **fields})


def found_by(measurement, source, model, **options):
    return measured([measurement], source, model, **options)[measurement.name]


@pytest.fixture(scope="module")
def source():
    return coloured()


@pytest.fixture(scope="module")
def model():
    return linear()


@pytest.fixture(scope="module")
def alone(source, model):
    return found_by(search(), source, model)


def test_it_equals_a_plain_loop(source, model, alone):
    images = pixels_of(source)
    positions = pairs(source.labels(), batch=4)
    embed = jax.jit(model)
    z = np.asarray(embed(images))
    shown = [
        [
            row.apply(images[second], rows.signs(SEED, second, number))
            for second in positions[:, 1].tolist()
        ]
        # Copies are the same draw.
        for row, number in zip(ROWS, NUMBERS, strict=True)
    ]
    transformed = np.stack([embed(jnp.stack(each)) for each in shown])
    similarity, change = changes(z[positions[:, 0]], z[positions[:, 1]], transformed)
    main = alone[""]
    np.testing.assert_allclose(main.similarity, similarity, atol=2e-6)
    np.testing.assert_allclose(main.change, change, atol=2e-6)
    assert main.change.dtype == main.similarity.dtype == np.float32
    assert np.abs(change).max() > 0.1
    # What changes nothing is exactly 0, and so neither a boost nor a decrease.
    unchanged = np.array(
        [
            np.abs(row - images[positions[:, 1]]).max((1, 2, 3)) < 1e-3
            for row in map(np.stack, shown)
        ]
    ).T
    np.testing.assert_array_equal(main.change.values == 0, unchanged)
    solarized = unchanged[:, NAMES.index("solarize 2")]
    assert solarized.any() and not solarized.all()
    assert main.label.values.tolist() == source.labels()[positions[:, 0]].tolist()
    assert main.image1.values.tolist() == [f"image_{i}" for i in positions[:, 0]]
    assert main.image2.values.tolist() == [f"image_{i}" for i in positions[:, 1]]
    assert main.class_name.values.tolist() == ["abc"[i] for i in main.label.values]
    assert main.row.values.tolist() == list(NAMES)


NUMBERS = [each.number for each in ROWS]
NUMBERS[NAMES.index("equalize 5")] = NUMBERS[0]


def test_its_statistics_are_those_of_what_it_found(alone):
    main, found = alone[""], alone["statistics"]
    expected = statistics(
        main.change.values, main.similarity.values, main.label.values, rows=list(NAMES)
    )
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found.copy_of.values.tolist() == [
        *("equalize 3", "identity", "solarize 2", "brightness 9", "shear_x 9", "equalize 3"),
        *("rotate 9", "brightness 5 + translate_x 3"),
    ]
    assert found.kind.values.tolist()[-2:] == ["geometric", "mixed"]
    assert found.class_name.values.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(("count", "size", "shard_size"), [(1, 100, 100), (1, 3, 5), (8, 2, 4)])
def test_batches_shards_and_devices_do_not_matter(
    source, model, alone, tmp_path, count, size, shard_size
):
    options = {"per_device_batch_size": size, "shard_size": shard_size, "count": count}
    found = found_by(search(), source, model, folder=tmp_path, **options)[""]
    assert found.drop_vars(["change", "similarity"]).identical(
        alone[""].drop_vars(["change", "similarity"])
    )
    for name in ("change", "similarity"):
        np.testing.assert_allclose(found[name], alone[""][name], atol=1e-6)
    np.testing.assert_array_equal(found.change == 0, alone[""].change == 0)


def test_what_was_interrupted_goes_on_to_the_same_bytes(source, model, tmp_path):
    driver = make_driver([search()], source, model, shard_size=2)
    folder = tmp_path / "parts"

    def run():
        ((_, found),) = driver.run(shards=claimed(folder, driver.measurements))
        return found

    expected = run()
    shards = sorted((folder / "similarity_search").glob("*.npz"))
    assert len(shards) == 3
    for path in shards[1:3]:
        path.unlink()
    before = shards[0].stat().st_mtime_ns
    found = run()
    assert shards[0].stat().st_mtime_ns == before and shards[2].exists()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name
    shutil.rmtree(folder)


def test_each_image_is_embedded_once_and_each_different_row_once(source, model):
    embedded = []

    def watched(variables, images):
        jax.debug.callback(lambda: embedded.append(images.shape[0]))
        return model.apply(variables, images)

    network, traced = counted(dataclasses.replace(model, apply=watched))
    (batches,) = make_driver([search()], source, network, per_device_batch_size=6).plan[1]
    assert len(traced) == 3  # shapes of what is carried, images, rows
    found_by(search(), source, network, per_device_batch_size=6)
    jax.effects_barrier()
    # 6 pairs are two batches of three; of their second images, two rows at a time; 6 of the 8 rows
    # are different, and change some image.
    assert len(batches) == 2 and embedded == [6, *[6] * 3] * 2


def test_logits_are_compared_if_asked(source, model, alone):
    logits, _ = model.apply(model.variables, model.normalize(pixels_of(source)))
    logits, positions = np.asarray(logits), pairs(source.labels(), batch=4)
    found = found_by(search(features="logits"), source, model)[""]
    first, second = (logits[positions[:, i]] for i in range(2))
    similarity, _ = changes(first, second, second[None])
    np.testing.assert_allclose(found.similarity, similarity, atol=2e-6)
    assert np.abs(found.change - alone[""].change).max() > 0.01
    assert found.attrs["features"] == "logits" and alone[""].attrs["features"] == "embedding"
    assert search(features="logits").needs_scores and not search().needs_scores


# Planted factors


def planted():
    """Of each class the second half of every batch is the first, changed by one operation.

    Class 0 is darkened so that `brightness 9` undoes it, class 1 is turned clockwise so that
    `rotate 9` does, class 2 is the negative.
    """
    side, generator = 16, np.random.default_rng(0)
    grid = (np.arange(side) - (side - 1) / 2) / side
    disc = np.hypot(*np.meshgrid(grid, grid))[..., None] < 0.45
    undone = {
        "brightness": lambda x: x / 1.9,
        "rotate": lambda x: AUTOAUGMENT["rotate"].apply(x, -30.0),
        "invert": lambda x: AUTOAUGMENT["invert"].apply(x, 0.0),
    }
    pixels, labels = [], []
    for label, undo in enumerate(undone.values()):
        # Coarse blobs on grey, so that turning loses little.
        blobs = generator.uniform(-0.5, 0.5, (16, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
        first = np.rint(255 * (0.5 + disc * blobs)).astype(np.float32) / 255
        second = np.stack([np.asarray(undo(each)) for each in first])
        for batch in range(2):
            half = slice(8 * batch, 8 * batch + 8)
            pixels += [first[half], second[half]]
            labels += [label] * 16
    return data.ArraySource(np.rint(255 * np.concatenate(pixels)).astype(np.uint8), labels)


def test_planted_factors_are_found_each_in_its_class():
    names = ["brightness 9", "rotate 9", "invert 0", "translate_x 5", "posterize 9", "shear_y 9"]
    model = models.from_function(
        lambda images: images.reshape(len(images), -1) - 0.5, name="pixels", image_size=16
    )
    measurement = search(rows=tuple(map(rows.Row.parse, names)), batch=16)
    found = found_by(
        measurement,
        planted(),
        model,
        canvas_size=16,
        preprocess=augment.get("none", size=16, resize=16),
        per_device_batch_size=48,
    )["statistics"]
    ranked = {
        name: [names[i] for i in np.argmax(found[name].values, axis=1)]
        for name in ("mean_change", "mean_percent_change", "proportion_boosted")
    }
    assert ranked["mean_change"] == ["brightness 9", "rotate 9", "invert 0"]
    # Pairs of negatives have negative similarity: their percentages are, and all rows boost it.
    for name in ("mean_percent_change", "proportion_boosted"):
        assert ranked[name][:2] == ["brightness 9", "rotate 9"]
    boosted = found.proportion_boosted
    # Its sign is random: only a brighter image is nearer.
    assert 0.2 < float(boosted.sel({"class": 0, "row": "brightness 9"})) < 0.8
    assert float(boosted.sel({"class": 1, "row": "rotate 9"})) == 1
    assert float(boosted.sel({"class": 2, "row": "invert 0"})) == 1
    assert found.pairs.values.tolist() == [16, 16, 16]


# What it says and refuses


def of(**fields):
    values = {"search": fields}
    return SimilaritySearch.from_config(config.check(config.ExperimentConfig, values))


def test_fields_of_the_config_say_what_is_searched():
    made = of()
    assert made.rows == rows.ROWS and (made.mode, made.batch, made.limit) == ("all", 32, 1000)
    made = of(rows=("sub_policies",), batch_size=2, pairs_per_class=7, seed=4, features="logits")
    assert made.rows == rows.SUB_POLICIES and made.mode == "sub_policies"
    assert (made.batch, made.limit, made.seed, made.features) == (2, 7, 4, "logits")
    assert of(rows=("brightness",)).mode == "named"
    assert made.identity() != of().identity() != of(rows=("distinct",)).identity()
    for fields, message in (
        ({"batch_size": 3}, r"config\.search\.batch_size is 3; expected an even number"),
        ({"rows": ("rotte",)}, r"config\.search\.rows\[0\]: unknown .* 'rotte'; did you mean 'rot"),
        ({"rows": ("rotate 0",)}, r"config\.search\.rows is \('rotate 0',\), which changes no ima"),
        ({"features": "logit"}, r"config\.search\.features"),
    ):
        with pytest.raises(UserError, match=message):
            of(**fields)


def test_small_classes_are_skipped_and_counted_and_none_is_an_error(model, alone):
    labels = np.array([0] * 5 + [1] * 3 + [2] * 9 + [3])
    pixels = coloured(len(labels))
    images = np.stack([pixels[i]["image"] for i in range(len(labels))])
    source = data.ArraySource(images, labels)
    found = found_by(search(rows=ROWS[-2:-1]), source, model)[""]
    assert found.label.values.tolist() == [0] * 2 + [2] * 4
    lines = search().summary(found).splitlines()
    assert lines[-1] == "2 classes with fewer than 4 images are skipped"
    assert "skipped" not in search().summary(alone[""])
    message = (
        r"config\.search\.batch_size is 32, but no class of arrays all has more than 9 images; "
        "expected an even number up to that"
    )
    with pytest.raises(UserError, match=message):
        search(batch=32).order(source)
    with pytest.raises(UserError, match=r"config\.search\.split: arrays all has no labels"):
        search().order(data.ArraySource(images))


def test_the_summary_names_the_most_boosted_rows_and_the_share_of_appearance(alone):
    lines = search().summary(alone[""]).splitlines()
    found = of_search(alone[""])
    boosted = found.proportion_boosted.mean("class").values
    assert lines[0] == "Most boosted of 8 rows, mean of 3 classes, 6 pairs (embedding)"
    best = int(np.argmax(boosted))
    assert lines[2].startswith(NAMES[best]) and f"{boosted[best]:.1%}" in lines[2]
    change = float(found.mean_percent_change.mean("class")[best])
    assert lines[2].endswith(f"{change:.2%}")
    # By hand: the five most boosted rows of each class, of equals those that change more.
    appearance = {"equalize 3", "color 0", "solarize 2", "brightness 9", "equalize 5"}
    counts = []
    for label in range(3):
        share = found.proportion_boosted.sel({"class": label}).values
        percent = found.mean_percent_change.sel({"class": label}).values
        best = sorted(range(8), key=lambda i: (-share[i], -percent[i], i))[:5]
        counts.append(sum(NAMES[i] in appearance for i in best))
    assert lines[-2].startswith(f"Appearance, all rows: {sum(counts) / 15:.1%} (")
    assert lines[-2].endswith(") of the 5 most boosted of each class, 62.5% of the 8 searched")
    low, high = (float(each.strip("%")) for each in re.findall(r"[\d.]+%", lines[-2])[1:3])
    assert 20 * min(counts) <= low <= sum(counts) / 15 * 100 <= high <= 20 * max(counts)
    assert lines[-1].startswith("Appearance, without copies and identities: ")
    assert lines[-1].endswith("of the 5 most boosted of each class, 50.0% of the 6 searched")
