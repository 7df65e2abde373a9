"""Accuracy counted by hand, and of other crops against a plain loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from invariance_jax import augment, config, data, models
from invariance_jax.augment.learned import COLLECTION
from invariance_jax.errors import UserError
from invariance_jax.evaluation.accuracy import Accuracy, AveragedAccuracy, TestTime, by_class
from invariance_jax.evaluation.measurement import to_bytes
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.transforms import normalize

from .conftest import IMAGES, SEED, SIDE, VARIANTS, Linear, measured_one, pixels_of

FALLING = np.arange(10.0, 0.0, -1)  # class 0 first, class 9 last
NAN = np.nan


def given(logits):
    """A model with these scores for images of grey level 0, 1, 2, ..."""
    return models.Model(
        name="given",
        variables=jnp.asarray(logits, jnp.float32),
        apply=lambda table, x: (table[jnp.rint(255 * x[:, 0, 0, 0]).astype(int)], {}),
        normalize=lambda images: images,
        num_classes=10,
        image_size=None,
    )


def test_by_hand():
    cases = [
        # scores, label, rank of the label
        *[(FALLING, label, label) for label in (0, 4, 5, 1)],
        # Ties count against the model, and so do scores that are no numbers.
        ([0.0] * 10, 0, 9),
        ([0.0] * 10, 9, 9),
        ([NAN] * 10, 0, 9),
        ([NAN, 9.0, *[0.0] * 8], 1, 1),  # beaten by one class
    ]
    logits, labels, ranks = (list(each) for each in zip(*cases, strict=True))
    levels = np.arange(len(cases), dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (len(cases), SIDE, SIDE, 3))
    source = data.ArraySource(images, labels, class_names="0123456789")
    # Three batches of three: the last place is padding, which counts for nothing.
    found = measured_one(Accuracy(), source, given(logits), per_device_batch_size=3)
    np.testing.assert_array_equal(found.correct_top1, np.array(ranks) < 1)
    np.testing.assert_array_equal(found.correct_top5, np.array(ranks) < 5)
    assert found.correct_top1.dtype == found.correct_top5.dtype == np.int8
    assert found.predicted.values[:6].tolist() == [0] * 6
    shares = np.exp(FALLING) / np.exp(FALLING).sum()
    np.testing.assert_allclose(found.probability[:4], shares[[0, 4, 5, 1]], rtol=1e-5)
    np.testing.assert_array_equal(found.label, labels)
    assert list(found.image.values) == source.names()
    np.testing.assert_allclose(found.cross_entropy[:4], -np.log(shares[[0, 4, 5, 1]]), rtol=1e-5)
    assert found.cross_entropy.dtype == np.float32
    assert Accuracy().summary(found) == "Accuracy: top-1 12.50%, top-5 50.00% of 8 images"


def test_crops_equal_a_plain_loop(alone, digits, model):
    found = alone("test_time")[""]
    assert found.correct_top1.dims == ("variant", "image")
    assert list(found.image.values) == digits.names()

    @jax.jit
    def crops(index, *place):
        key = jax.random.fold_in(jax.random.key(SEED), index)
        images = [augmentation(key, *place) for augmentation in VARIANTS.values()]
        return Linear().apply(model.variables, normalize(to_bytes(jnp.stack(images))))[0]

    for i, name in enumerate(digits.names()):
        canvas, height, width = data.to_canvas(digits[i]["image"], SIDE)
        scores = np.asarray(crops(i, canvas, height, width))
        label = digits[i]["label"]
        assert int(found.label.sel(image=name)) == label
        for variant, logits in zip(VARIANTS, scores, strict=True):
            better = (logits > logits[label]).sum()
            here = found.sel(variant=variant, image=name)
            assert int(here.predicted) == logits.argmax()
            assert int(here.correct_top1) == (better < 1)
            assert int(here.correct_top5) == (better < 5)
            shares = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(here.probability, shares[label], rtol=1e-3)
    assert found.sizes == {"variant": 5, "image": IMAGES}


def test_the_crops_differ_and_come_from_the_seed(alone, digits, model):
    first = alone("test_time")[""].probability
    other = measured_one(TestTime(variants=VARIANTS, seed=SEED + 1), digits, model).probability
    fixed = ["none", "scaled_center_crop(k=0)"]  # k = 0 is the whole centre crop
    np.testing.assert_array_equal(first.sel(variant=fixed), other.sel(variant=fixed))
    np.testing.assert_allclose(first.sel(variant=fixed[0]), first.sel(variant=fixed[1]), atol=1e-5)
    drawn = ["random_resized_crop", "scaled_center_crop(k=7)", "scaled_center_crop(k=14)"]
    change = np.abs(first - other).sel(variant=drawn)
    assert float(change.max("image").min()) > 1e-3


def test_crops_are_those_of_the_config():
    values = {"eval": {"test_time": ("none", "scaled_center_crop(k=3)"), "seed": 5}}
    made = TestTime.from_config(config.check(config.ExperimentConfig, values))
    assert list(made.variants) == ["none", "scaled_center_crop(k=3)"] and made.seed == 5
    assert made.variants["none"].size == 224
    assert list(TestTime.from_config(config.ExperimentConfig()).variants) == ["none"]
    values["eval"]["test_time"] = ("none", "scaled_centre_crop")
    with pytest.raises(UserError, match=r"config\.eval\.test_time\[1\]: .*'scaled_center_crop'"):
        TestTime.from_config(config.check(config.ExperimentConfig, values))


LEARNED = "augerino(generators=('translate_x', 'rotate'), start=(1.0, -0.5), copies=3)"


@pytest.mark.parametrize("learned", [False, True])
def test_averages_of_copies_equal_a_plain_loop(digits, model, learned):
    raw = jnp.float32([1.0, -0.5])
    params = {**model.variables["params"], COLLECTION: raw}
    known = dataclasses.replace(model, variables={**model.variables, "params": params})
    crop = VARIANTS["random_resized_crop"]
    made = augment.parse_learned(LEARNED) if learned else crop
    measurement = AveragedAccuracy(augmentation=made, described="x", copies=3, seed=SEED)
    found = measured_one(measurement, digits, known)

    @jax.jit
    def scores(index, image, *place):
        logits = []
        for key in jax.random.split(jax.random.key(SEED), 3):
            key = jax.random.fold_in(key, index)
            if learned:
                (draw,) = made.draw(key[None], 1)[0]
                shown = made.warp(normalize(image), made.weights(raw, draw))
            else:
                shown = normalize(to_bytes(crop(key, *place)))
            logits.append(Linear().apply(model.variables, shown[None])[0][0])
        return jnp.mean(jax.nn.log_softmax(jnp.stack(logits)), 0)

    for i, image in enumerate(pixels_of(digits)):
        average = np.asarray(scores(i, image, *data.to_canvas(digits[i]["image"], SIDE)))
        shares, label = np.exp(average) / np.exp(average).sum(), digits[i]["label"]
        np.testing.assert_allclose(found.probability[i], shares[label], rtol=1e-4)
        np.testing.assert_allclose(found.cross_entropy[i], -np.log(shares[label]), rtol=1e-4)
        assert int(found.predicted[i]) == average.argmax()
    assert measurement.summary(found).startswith("Accuracy, averaged over 3 draws of x: top-1 ")


def test_what_is_averaged_over_is_what_the_run_was_trained_with():
    def made(learned, *measurements, trained=True):
        values = {"augment": {"name": "flip", "learned": learned}, "eval": {"seed": 4}}
        values["eval"]["measurements"] = measurements
        found = make_measurements(config.check(config.ExperimentConfig, values), trained=trained)
        return {each.name: each for each in found}

    (plain,) = made("", "averaged_accuracy(copies=2)").values()
    assert (plain.described, plain.copies, plain.seed) == ("flip", 2, 4)
    assert plain.identity() == {"augmentation": "flip", "copies": 2}
    # A learned augmentation is measured with and without, once it has learned.
    both = made(LEARNED, "accuracy")
    assert list(both) == ["accuracy", "averaged_accuracy"]
    assert both["averaged_accuracy"].augmentation == augment.parse_learned(LEARNED)
    assert both["averaged_accuracy"].copies == 3
    assert list(made(LEARNED, "accuracy", trained=False)) == ["accuracy"]
    asked = made(LEARNED, "averaged_accuracy(augmentation='none', copies=1)")
    assert asked["averaged_accuracy"].described == "none"
    # Which class an image has, evaluation does not know.
    assert list(made("augerino(per_class=True)", "accuracy")) == ["accuracy"]
    with pytest.raises(
        UserError, match=r"measurements\[0\]: config\.augment\.learned is .*class says"
    ):
        made("augerino(per_class=True)", "averaged_accuracy")


def test_classes_by_hand():
    found = xr.Dataset(
        {
            "correct_top1": (("variant", "image"), np.array([[1, 0, 1], [0, 0, 0]], np.int8)),
            "correct_top5": (("variant", "image"), np.array([[1, 1, 1], [0, 1, 0]], np.int8)),
        },
        coords={
            "variant": ["none", "scaled_center_crop(k=3)"],
            "image": ["a", "b", "c"],
            "label": ("image", np.array([7, 7, 2], np.int32)),
        },
    )
    assert by_class(found).splitlines() == [
        "variant,label,images,top1,top5",
        "none,2,1,1.000000,1.000000",
        "none,7,2,0.500000,1.000000",
        "scaled_center_crop(k=3),2,1,0.000000,0.000000",
        "scaled_center_crop(k=3),7,2,0.000000,0.500000",
    ]
    measurement = TestTime(variants={}, seed=0)
    assert measurement.sidecar(found) == by_class(found)
    assert [line.split() for line in measurement.summary(found).splitlines()[1:]] == [
        ["top-1", "%", "top-5", "%"],
        ["none", "66.7", "100.0"],
        ["scaled_center_crop(k=3)", "0.0", "33.3"],
    ]
