"""Rows for each class: chosen and done as a plain loop over classes and images does."""

import csv
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import augment
from invariance_jax.errors import UserError
from invariance_jax.factors import per_class, statistics
from invariance_jax.factors.per_class import Chosen, Named, Searched
from invariance_jax.factors.rows import Row, coordinates
from invariance_jax.transforms import AUTOAUGMENT

LABELS = ("shear_x 5", "rotate 9", "invert 3", "color 2", "posterize 6 + rotate 4", "rescale 8")
NAMES = ("ant", "bee", "cat", "dog", "eel, conger")


@pytest.fixture(scope="module")
def found():
    """Statistics of five classes, with equal values and NaN; one class is never boosted."""
    generator = np.random.default_rng(0)
    change = generator.integers(-4, 5, (200, len(LABELS))) / 10
    labels = np.repeat(np.arange(5), 40)
    change[labels == 3] = -0.1
    change[labels == 1, 2] = change[labels == 1, 4] + 0.3 * (generator.random(40) < 0.3)
    rows = [Row.parse(label) for label in LABELS]
    found = statistics(
        change, np.full(200, 0.5), labels, rows=list(LABELS), class_names=list(NAMES)
    )
    return found.assign_coords(coordinates(rows))


def by_loop(found, options):
    """What section 4 says, class by class and row by row."""
    keys = {"proportion_boosted": "proportion_boosted", "percent_change": "mean_percent_change"}
    ranking = options.get("ranking", "proportion_boosted")
    first = keys.pop(ranking)
    (second,) = keys.values()
    across = options.get("across_classes", False)
    chosen = {label: [] for label in found["class"].values.tolist()}
    for position, label in enumerate(found["class"].values.tolist()):
        lines = []
        for place, name in enumerate(LABELS):
            at = found.isel(row=place)
            at = at.mean("class") if across else at.isel({"class": position})
            lines.append((name, {key: float(at[key]) for key in found.data_vars if key != "pairs"}))
        lines.sort(key=lambda line: (-line[1][first], -line[1][second]))
        kept = []
        for name, line in lines[: options.get("top", 25)]:
            least, least_change = (
                options.get("least_proportion", 0.4),
                options.get("least_change", 0),
            )
            if least is not None and not line["proportion_boosted"] > least:
                continue
            if (
                not across
                and least_change is not None
                and not line["mean_percent_change"] >= least_change
            ):
                continue
            kept.append((name, line))
        weights = [x["mean_percent_boost"] * x["proportion_boosted"] for _, x in kept]
        weights = [0.0 if math.isnan(x) else x for x in weights]
        how = options.get("probability", "uniform")
        for (name, _), weight in zip(kept, weights, strict=True):
            softmax = math.exp(weight) / sum(map(math.exp, weights)) if len(kept) > 1 else 0.5
            p = {"uniform": 1 / len(kept), "fixed": 0.1, "softmax": softmax}.get(how, how)
            chosen[label].append((name, p))
    return chosen


OPTIONS = (
    {},
    {"top": 3},
    {"top": 3, "ranking": "percent_change"},
    {"ranking": "percent_change", "least_proportion": None, "least_change": None},
    {"least_proportion": 0.45, "least_change": None},
    {"least_proportion": None, "least_change": 0.02},
    {"across_classes": True, "least_change": 9.0, "least_proportion": 0.3},
    {"across_classes": True, "top": 3, "probability": "softmax", "ranking": "percent_change"},
    {"probability": "fixed"},
    {"probability": 0.25},
    {"probability": "softmax"},
    {"probability": "softmax", "top": 1},
    {"probability": "softmax", "least_proportion": None, "least_change": None},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rows_are_chosen_as_by_a_loop(found, options):
    chosen = Searched(file="", **options).of(found)
    expected = by_loop(found, options)
    assert {label: [each.row.label for each in rows] for label, rows in chosen.items()} == {
        label: [name for name, _ in rows] for label, rows in expected.items()
    }
    for label, rows in expected.items():
        chances = [each.probability for each in chosen[label]]
        np.testing.assert_allclose(chances, [p for _, p in rows])


def test_the_statistics_tell_the_options_apart(found):
    every = [str(by_loop(found, options)) for options in OPTIONS]
    alike = [OPTIONS[i] for i, each in enumerate(every) if every.count(each) > 1]
    assert not alike and not by_loop(found, {})[3]


def test_a_share_of_the_classes_with_rows_is_drawn(found, monkeypatch):
    chosen = Searched(file="").of(found)
    monkeypatch.setattr(Searched, "_all", lambda *_: chosen)
    whole = Searched(file="").choose(NAMES)
    assert whole == chosen and [label for label, rows in whole.items() if rows] == [0, 1, 2, 4]
    halves = [Searched(file="", share=0.5, seed=seed).choose(NAMES) for seed in range(40)]
    left = [tuple(label for label, rows in half.items() if rows) for half in halves]
    assert all(len(each) == 2 for each in left) and len(set(left)) == 6  # every pair
    for half, each in zip(halves, left, strict=True):
        assert half == {label: chosen[label] if label in each else () for label in range(5)}
    assert halves[0] == Searched(file="", share=0.5).choose(NAMES)
    one = Searched(file="", share=0.01).choose(NAMES, (1, 3))
    assert one == {1: chosen[1], 3: ()}


def test_named_rows_are_of_named_classes():
    turn = Chosen(Row.parse("rotate 9"), 1.0)
    found = Named(rows="rotate 9", classes=("bee", 3)).choose(NAMES)
    assert found == {0: (), 1: (turn,), 2: (), 3: (turn,), 4: ()}
    assert Named().choose(NAMES, [4]) == {4: (Chosen(Row.parse("shear_x 5"), 1.0),)}
    several = per_class.parse("named(rows=('rotate 9', 'invert 1'), classes='cat', probability=.2)")
    expected = tuple(Chosen(Row.parse(label), 0.2) for label in ("rotate 9", "invert 1"))
    assert several.choose(NAMES, (1, 2)) == {1: (), 2: expected}
    assert per_class.parse("") is None


BY_CLASS = {
    0: (Chosen(Row.parse("shear_x 5"), 0.7), Chosen(Row.parse("posterize 6 + rotate 4"), 0.8)),
    2: (Chosen(Row.parse("color 9"), 0.5),),
    3: tuple(Chosen(Row.parse(f"{name} 9"), 0.6) for name in ("equalize", "rotate", "rescale")),
}
BATCH = 24


@pytest.fixture(scope="module")
def photos():
    generator = np.random.default_rng(1)
    canvases = np.zeros((BATCH, 16, 16, 3), np.uint8)
    canvases[:, :12, :15] = generator.integers(0, 256, (BATCH, 12, 15, 3))
    return canvases, np.full(BATCH, 12), np.full(BATCH, 15), np.resize(np.arange(5), BATCH)


@pytest.mark.parametrize("before", [False, True])
def test_images_get_what_a_plain_loop_gives_them(photos, before):
    standard = augment.with_policies(augment.get("random_resized_crop_flip", size=8), [])
    square = augment.get("none", size=10, resize=10) if before else None
    operation = per_class.operation_of(BY_CLASS, 5, augmentation=standard, square=square)
    keys = jax.random.split(jax.random.key(0), BATCH)
    canvases, _, _, labels = photos
    shown = np.asarray(jax.jit(jax.vmap(operation))(keys, *photos))

    own = jax.vmap(jax.random.fold_in, (0, None))(keys, np.uint32(0xFFFF_FFFC))
    draws = jax.device_get(jax.vmap(operation.draw)(own, labels))
    do = {name: jax.jit(row.apply) for name, row in AUTOAUGMENT.items()}
    plain = jax.jit(standard)
    untouched = 0
    for i in range(BATCH):
        canvas, height, width = canvases[i], 12, 15
        first = square or plain
        image = np.asarray(first(keys[i], canvas, height, width))
        if draws.applied[i].any():  # operations act on whole grey levels
            image = jnp.float32(np.floor(image * 255 + 0.501) / 255)
        done = []
        for place, (row, _) in enumerate(BY_CLASS.get(int(labels[i]), ())):
            for number, step in enumerate(row.steps):
                at = 2 * place + number  # the longest row has two steps
                if not draws.applied[i, at]:
                    continue
                index, sign = int(draws.index[i, at]), float(draws.sign[i, at])
                assert 0 <= index <= step.index
                size = AUTOAUGMENT[step.operation].magnitudes[index]
                image = do[step.operation](image, size * (sign if step.signed else 1))
                done.append(step.operation)
        if before:
            if done:
                canvas = np.zeros_like(canvas)
                canvas[:10, :10] = np.floor(np.asarray(image) * 255 + 0.5)
                height = width = 10
            image = plain(keys[i], canvas, height, width)
        np.testing.assert_allclose(shown[i], image, atol=1e-5)
        untouched += not done
        if not done:  # exactly as without
            expected = plain(keys[i], canvases[i], 12, 15)
            np.testing.assert_allclose(shown[i], expected, atol=1e-6)
        assert ("posterize" in done) == ("rotate" in done) or labels[i] != 0
    assert BATCH // 5 * 2 <= untouched < 20  # all of the two classes without rows, some of others


def test_what_is_drawn_has_the_chances_that_were_chosen():
    standard = augment.with_policies(augment.get("none", size=8), [])
    operation = per_class.operation_of(BY_CLASS, 5, augmentation=standard)
    count = 20_000
    keys = jax.random.split(jax.random.key(3), count)
    draws = jax.jit(jax.vmap(operation.draw, (0, None)))

    def of(label):
        found = jax.device_get(draws(keys, label))
        return [np.asarray(each).reshape(count, 3, 2) for each in found]

    applied, _, index, sign = of(0)
    assert applied[:, 0, 0].mean() == pytest.approx(0.7, abs=0.02)
    assert not applied[:, 0, 1].any() and not applied[:, 2].any()
    # Both steps of a sub-policy, or none; each row for itself.
    np.testing.assert_array_equal(applied[:, 1, 0], applied[:, 1, 1])
    assert (applied[:, 0, 0] & applied[:, 1, 0]).mean() == pytest.approx(0.56, abs=0.02)
    for values, most in ((index[:, 0, 0], 5), (index[:, 1, 0], 6), (index[:, 1, 1], 4)):
        counts = np.bincount(values, minlength=10) / count
        np.testing.assert_allclose(counts, (np.arange(10) <= most) / (most + 1), atol=0.02)
    assert set(np.unique(sign)) == {-1, 1} and abs(sign.mean((0,))).max() < 0.03
    for label in (1, 4):
        assert not of(label)[0].any()


def test_rotation_goes_one_way_and_shear_both(photos):
    standard = augment.with_policies(augment.get("none", size=8), [])
    assert per_class.operation_of(BY_CLASS, 5, augmentation=standard).signed == frozenset(
        n for n, each in AUTOAUGMENT.items() if each.signed
    ) - {"rotate"}


def test_it_says_and_lists_what_each_class_kept():
    chosen = {0: BY_CLASS[0], 1: (), 2: BY_CLASS[2], 3: BY_CLASS[3], 4: ()}
    assert per_class.told(chosen) == (
        "per-class augmentation of 3 of 5 classes; by number of rows, how many classes have so "
        "many: 0: 2, 1: 1, 2: 1, 3: 1"
    )
    chosen = {0: BY_CLASS[0], 2: BY_CLASS[2], 4: ()}
    lines = list(csv.DictReader(io.StringIO(per_class.to_csv(chosen, NAMES))))
    found = [(x["class"], x["class_name"], x["row"], x["probability"]) for x in lines]
    assert found == [
        ("0", "ant", "shear_x 5", "0.7"),
        ("0", "ant", "posterize 6 + rotate 4", "0.8"),
        ("2", "cat", "color 9", "0.5"),
        ("4", "eel, conger", "", ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "serched(file='a.nc')",
            "unknown per-class augmentation 'serched'; did you mean 'searched'",
        ),
        ("searched", "missing 1 required keyword-only argument: 'file'"),
        ("searched(file='a.nc', tops=3)", "has no option 'tops'; its options: when, share, seed, "),
        ("searched(file='a.nc', top=0)", "top is 0; expected a whole number, 1 to inf"),
        (
            "searched(file='a.nc', ranking='change')",
            "unknown ranking 'change'; .*one of: proportion_boosted, percent_change",
        ),
        ("searched(file='a.nc', across_classes=1)", "across_classes is 1; expected True or False"),
        ("searched(file='a.nc', least_change='x')", "least_change is 'x'; expected a number"),
        (
            "searched(file='a.nc', probability='unifrm')",
            "unknown probability 'unifrm'; did you mean 'uniform'",
        ),
        ("searched(file='a.nc', probability=2)", "probability is 2; expected a number, 0 to 1"),
        (
            "searched(file='a.nc', when='never')",
            "unknown time to act 'never'; one of: after, before",
        ),
        ("searched(file='a.nc', share=0)", "share is 0; expected a share of the classes, above 0"),
        ("searched(file='a.nc', seed=-1)", "seed is -1; expected a whole number, 0"),
        ("named(rows='sheer_x 5')", "unknown operation 'sheer_x'; did you mean 'shear_x'"),
        ("named(rows='shear_x')", "row is 'shear_x'; expected an operation and an index"),
        ("named(rows=())", r"rows is \(\); expected at least one"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(text, message):
    with pytest.raises(UserError, match=rf"config\.augment\.per_class: .*{message}"):
        per_class.parse(text, "config.augment.per_class")


def test_mistakes_about_classes_and_files_are_named(found, tmp_path):
    with pytest.raises(UserError, match="unknown class 'bea'; did you mean 'bee'"):
        Named(classes="bea").choose(NAMES)
    with pytest.raises(UserError, match="none of 2 classes keeps a row"):
        Named(classes="bee").choose(NAMES, (0, 2))
    with pytest.raises(UserError, match=r"absent\.nc is not a readable result file"):
        Searched(file=str(tmp_path / "absent.nc")).choose(NAMES)
