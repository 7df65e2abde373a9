"""Prediction consistency against a plain double loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from invariance_jax import config, data
from invariance_jax.errors import UserError
from invariance_jax.evaluation.consistency import PredictionConsistency, mean_divergence
from invariance_jax.evaluation.measurement import to_bytes
from invariance_jax.transforms import normalize

from .conftest import MEASUREMENTS, NONE, SEED, SIDE, VARIANTS, Linear, measured_one


def by_loop(log_probability):
    """Over ordered pairs of different augmentations."""
    count = len(log_probability)
    total = 0.0
    for i in range(count):
        for j in range(count):
            if i != j:
                p, q = (np.exp(np.float64(log_probability[k])) for k in (i, j))
                total = total + np.sum(p * np.log(p / q), axis=-1)
    return total / (count * (count - 1))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_mean_divergence_is_that_of_a_double_loop(count):
    scores = 3 * jax.random.normal(jax.random.key(count), (count, 4, 7))
    log_probability = jax.nn.log_softmax(scores)
    expected = by_loop(np.asarray(log_probability))
    assert expected.min() > 0.1
    np.testing.assert_allclose(mean_divergence(log_probability), expected, rtol=1e-5)


def test_a_divergence_by_hand():
    # KL of (1/2, 1/2) from (1/4, 3/4) is log(4/3) / 2; the other way log(27/16) / 4.
    log_probability = jnp.log(jnp.asarray([[0.5, 0.5], [0.25, 0.75]]))
    expected = (np.log(4 / 3) / 2 + np.log(27 / 16) / 4) / 2
    np.testing.assert_allclose(mean_divergence(log_probability), expected, rtol=1e-5)


def test_alike_judgements_do_not_diverge_whatever_rounding_says():
    one = jax.nn.log_softmax(10 * jax.random.normal(jax.random.key(0), (6, 100)))
    found = mean_divergence(jnp.stack([one] * 5))
    assert float(found.min()) >= 0
    np.testing.assert_allclose(found, 0, atol=1e-5)


def test_equals_a_plain_loop(alone, digits, model):
    found = alone("prediction_consistency")[""]

    @jax.jit
    def judge(key, *place):
        image = VARIANTS["random_resized_crop"](key, *place)
        logits, _ = Linear().apply(model.variables, normalize(to_bytes(image))[None])
        return jax.nn.log_softmax(logits[0])

    for i, divergence in enumerate(found.divergence.values):
        place = data.to_canvas(digits[i]["image"], SIDE)
        keys = jax.random.split(jax.random.key(SEED), 3)
        judged = [judge(jax.random.fold_in(key, i), *place) for key in keys]
        assert divergence == pytest.approx(float(by_loop(np.stack(judged))), rel=1e-3)
    assert found.divergence.dims == ("image",) and found.divergence.dtype == np.float32
    assert float(found.divergence.min()) > 0
    assert found.attrs == {"augmentation_of_images": "random_resized_crop", "samples": 3}
    mean = float(found.divergence.mean())
    assert MEASUREMENTS["prediction_consistency"].summary(found) == (
        f"Prediction consistency: KL {mean:.4f} nats between random_resized_crop draws, mean of 11 "
        "images"
    )


def test_what_is_not_random_does_not_diverge_and_another_seed_draws_other_crops(
    alone, digits, model
):
    def measure(augmentation, seed):
        measurement = PredictionConsistency(
            augmentation=augmentation, described="x", samples=3, seed=seed
        )
        return measured_one(measurement, digits, model).divergence.values

    np.testing.assert_allclose(measure(NONE, SEED), 0, atol=1e-6)
    other = measure(VARIANTS["random_resized_crop"], SEED + 1)
    assert np.abs(other - alone("prediction_consistency")[""].divergence).max() > 1e-3


@pytest.mark.parametrize("samples", [1, 0, 2.0, True])
def test_too_few_samples_are_refused(samples):
    with pytest.raises(UserError, match=f"samples is {samples!r}; expected a whole number, at le"):
        PredictionConsistency(augmentation=NONE, described="none", samples=samples)


def test_its_options_are_part_of_its_identity():
    made = PredictionConsistency.from_config(
        config.ExperimentConfig(), augmentation="translate(t=0.1)", samples=4
    )
    assert made.identity() == {"augmentation": "translate(t=0.1)", "samples": 4}
    assert made.augmentation.size == 224
