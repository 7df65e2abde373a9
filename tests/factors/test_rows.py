"""The rows that are searched: which, what they do, which do the same."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from invariance_jax.errors import UserError
from invariance_jax.factors import rows
from invariance_jax.factors.rows import DISTINCT, IDENTITY, ROWS, SUB_POLICIES, Row, Step
from invariance_jax.transforms import AUTOAUGMENT

# Section 4.
INDICES = {
    "autocontrast": (1, 3, 5),
    "color": (0, 2, 4, 8),
    "contrast": (3, 8),
    "equalize": (1, 2, 3, 4, 5, 7, 8, 9),
    "invert": (3, 4, 5, 6, 8),
    "posterize": (5, 6, 7, 8),
    "rescale": tuple(range(10)),
    "rotate": (3, 4, 8, 9),
    "sharpness": (7,),
    "shear_x": (2, 4, 5, 6, 9),
    "shear_y": (4, 5, 6, 7, 8),
    "solarize": (2, 3, 4, 5, 6, 7, 8),
    "translate_x": (3,),
    "translate_y": (2, 3, 6, 7),
}
WITHOUT_SIGN = {
    *("rotate", "posterize", "solarize", "autocontrast", "equalize", "invert", "rescale")
}


def test_the_63_rows_are_those_of_the_table():
    labels = [f"{name} {index}" for name, indices in INDICES.items() for index in indices]
    assert [each.label for each in ROWS] == labels and len(labels) == 63
    kinds = [each.kind for each in ROWS]
    assert kinds.count("appearance") == 34 and kinds.count("geometric") == 29


def test_the_49_sub_policies_are_made_of_the_rows():
    assert len(SUB_POLICIES) == len({each.label for each in SUB_POLICIES}) == 49
    assert {Row((step,)) for each in SUB_POLICIES for step in each.steps} == set(ROWS)
    labels = [each.label for each in SUB_POLICIES]
    assert labels[0] == "posterize 8 + rotate 9" and "shear_x 2 + invert 5" in labels
    zooms = [f"rescale {i} + rescale {i + 1}" for i in range(0, 10, 2)]
    assert [each for each in labels if "rescale" in each] == zooms
    assert Row.parse("equalize 1 + rotate 3").kind == "mixed"
    assert Row.parse("solarize 5 + autocontrast 5").kind == "appearance"


def test_copies_are_named_and_left_out():
    of = dict(zip([each.label for each in ROWS], rows.copies(ROWS), strict=True))
    copied = {label: original for label, original in of.items() if label != original}
    expected = {f"equalize {i}": "equalize 1" for i in INDICES["equalize"][1:]}
    expected |= {f"invert {i}": "invert 3" for i in INDICES["invert"][1:]}
    expected |= {f"autocontrast {i}": "autocontrast 1" for i in (3, 5)}
    expected |= {"posterize 7": "posterize 6", "color 0": IDENTITY, "rescale 0": IDENTITY}
    assert copied == expected
    assert len(DISTINCT) == 63 - len(expected) == 47
    kinds = [each.kind for each in DISTINCT]
    assert kinds.count("appearance") == 19 and kinds.count("geometric") == 28
    # In a sequence a step that changes nothing does not count.
    pairs = [Row.parse(text) for text in ("color 0 + equalize 3", "invert 1", "equalize 9")]
    assert rows.copies(pairs) == ["color 0 + equalize 3", "invert 1", "color 0 + equalize 3"]
    assert rows.distinct([Row.parse("rotate 0 + color 0")]) == ()


# One size, so that all tests share the compiled operations: more than 255 pixels of one level or
# another, which equalize needs, and neither black nor white, which autocontrast does.
PIXELS = np.random.default_rng(0).integers(10, 240, (18, 18, 3), np.uint8)
IMAGE = jnp.asarray(PIXELS / 255, jnp.float32)
PLUS, MINUS = jnp.ones(2), -jnp.ones(2)


def test_rows_with_the_same_effect_do_the_same_to_an_image_and_others_do_not():
    seen = {IDENTITY: np.asarray(IMAGE)}
    for row, original in zip(ROWS, rows.copies(ROWS), strict=True):
        found = np.asarray(row.apply(IMAGE, MINUS))
        if original in seen:
            np.testing.assert_array_equal(found, seen[original], err_msg=row.label)
        else:
            for label, other in seen.items():
                assert np.abs(found - other).max() > 0.5 / 255, f"{row.label} and {label}"
            seen[original] = found


def test_only_operations_with_two_directions_have_a_sign():
    assert set(AUTOAUGMENT) - WITHOUT_SIGN == rows.SIGNED
    for name, each in AUTOAUGMENT.items():
        row = Row((Step(name, 7),))
        plus, minus = row.apply(IMAGE, PLUS), row.apply(IMAGE, MINUS)
        assert np.array_equal(plus, minus) == (name in WITHOUT_SIGN), name
        sign = 1 if name in WITHOUT_SIGN else -1
        np.testing.assert_array_equal(minus, each.apply(IMAGE, sign * each.magnitudes[7]))


def test_rotation_is_counter_clockwise_and_nearest_with_grey_fill():
    found = Row.parse("rotate 9").apply(IMAGE, MINUS)
    grey = (128, 128, 128)
    expected = Image.fromarray(PIXELS).rotate(30, Image.Resampling.NEAREST, fillcolor=grey)
    np.testing.assert_array_equal(np.rint(255 * np.asarray(found)), np.asarray(expected))


def test_the_steps_of_a_sub_policy_follow_each_other_with_a_sign_each():
    found = Row.parse("brightness 5 + shear_x 9").apply(IMAGE, jnp.array([-1.0, 1.0]))
    expected = AUTOAUGMENT["shear_x"].apply(AUTOAUGMENT["brightness"].apply(IMAGE, -0.5), 0.3)
    np.testing.assert_array_equal(found, expected)


def test_signs_depend_on_seed_image_and_row_alone():
    draw = jax.jit(jax.vmap(rows.signs, (None, 0, None)))
    images = np.arange(400)
    first = np.asarray(draw(3, images, 7))
    np.testing.assert_array_equal(first[10:20], draw(3, np.roll(images, -10), 7)[:10])
    assert set(np.unique(first)) == {-1.0, 1.0} and first.shape == (400, 2)
    others = [draw(4, images, 7), draw(3, images, 8), draw(3, images + 400, 7)]
    for signs in (first, *map(np.asarray, others)):
        assert np.abs(signs.mean(0)).max() < 4 / 20  # four standard errors
    for other in (first[:, ::-1], *others):
        assert np.mean(first == np.asarray(other)) < 0.65


def test_no_two_rows_have_one_number():
    steps = [Step(name, index) for name in AUTOAUGMENT for index in range(10)]
    singles = {Row((each,)).number for each in steps}
    pairs = {Row(each).number for each in itertools.product(steps, steps)}
    assert len(singles | pairs) == 150 + 150**2
    assert max(pairs) < 2**31


def test_rows_are_asked_for_by_set_operation_or_name():
    assert rows.parse(["all"], "x") == ROWS and rows.parse(["distinct"], "x") == DISTINCT
    assert rows.parse(["sub_policies"], "x") == SUB_POLICIES
    found = rows.parse(["brightness", "rotate 4", "brightness 9", "invert 1 + rotate 2"], "x")
    labels = [*(f"brightness {i}" for i in range(10)), "rotate 4", "invert 1 + rotate 2"]
    assert [each.label for each in found] == labels
    found = rows.coordinates(found[-2:])
    assert found["row"] == ["rotate 4", "invert 1 + rotate 2"]
    for name, expected in {
        "operation": ["rotate", "invert"],
        "operation2": ["", "rotate"],
        "kind": ["geometric", "mixed"],
        "copy_of": ["rotate 4", "invert 1 + rotate 2"],
    }.items():
        assert found[name] == ("row", expected)
    assert found["index"][1].tolist() == [4, 1] and found["index2"][1].tolist() == [-1, 2]
    assert "operation2" not in rows.coordinates(ROWS)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["all", "rotat"], r"config\.x\[1\]: unknown operation or set of rows 'rotat'; did you"),
        (["rotat 4"], r"config\.x\[0\]: unknown operation 'rotat'; did you mean 'rotate'"),
        (["rotate 10"], r"index of rotate is '10'; expected a whole number, 0 to 9"),
        (["rotate -1"], r"index of rotate is '-1'; expected"),
        (["rotate 1 + rotate 2 + rotate 3"], r"row is 'rotate 1 .*; expected an operation and"),
        (["rotate 1 +"], r"row is 'rotate 1 \+'; expected"),
        ([], r"config\.x is empty; expected 'all', 'distinct', 'sub_policies' or rows"),
    ],
)
def test_what_is_no_row_is_named(texts, message):
    with pytest.raises(UserError, match=message):
        rows.parse(texts, "config.x")
