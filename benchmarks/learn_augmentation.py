"""Whether a learned augmentation finds what the data show: digits at random places, or centred.

Scans of digits (8x8) stand in a frame of 16, in training and test alike: centred, or moved by up to
a quarter of the frame each way. Widths of translation and rotation start near zero. The ground is
ImageNet's mean colour, so that zero fill cannot be seen; six and nine differ by their orientation.

    python benchmarks/learn_augmentation.py

Writes `results/learn_augmentation.json`: every run's widths and accuracies, the device, versions.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from invariance_jax import data
from invariance_jax.augment.learned import COLLECTION, mean_log_probability
from invariance_jax.config import ExperimentConfig
from invariance_jax.evaluation.results import versions
from invariance_jax.fields import check
from invariance_jax.training import experiment
from invariance_jax.training.state import init_state
from invariance_jax.training.step import TrainMetrics, make_train_step
from invariance_jax.transforms import normalize

GENERATORS = ("translate_x", "translate_y", "rotate")
FRAME, DIGIT, REACH = 16, 8, 4
MEAN = np.round(255 * np.array([0.485, 0.456, 0.406]))
# Reach of the places, and at how many every scan stands: at one, or a distribution of them.
DATA = {"centred": (0, 1), "translated": (REACH, 1), "translated 16 times": (REACH, 16)}
# softplus(-3) is .049: translations within .012 of the side, rotations within 1.4 degrees. The
# original starts at .84: .3 of the side, 34 degrees.
NARROW, WIDE = -3.0, 0.84
COPIES = 4


def digits(split: str, reach: int, places_each: int, blur: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 16, 16, 3] with digits at places up to `reach` from the middle; labels.

    Every scan stands at `places_each` random places, smoothed `blur` times (at most 2) by 1, 2, 1.
    """
    source = data.load_source("digits", split)
    # The source enlarges its scans of 8 pixels fourfold.
    ink = np.stack([source[i]["image"][2::4, 2::4, :1] for i in range(len(source))]) / 255
    padded = np.pad(ink, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for axis in (1, 2):
        for _ in range(blur):
            padded = (2 * padded + np.roll(padded, 1, axis) + np.roll(padded, -1, axis)) / 4
    ink = padded
    ink, labels = (np.repeat(x, places_each, axis=0) for x in (ink, source.labels()))
    images = np.broadcast_to(MEAN, (len(ink), FRAME, FRAME, 3)).copy()
    places = np.random.default_rng(0).integers(-reach, reach, (len(ink), 2), endpoint=True)
    side = ink.shape[1]
    for image, scan, (down, right) in zip(images, ink, places + (FRAME - side) // 2, strict=True):
        wide = np.zeros((FRAME + 2 * REACH, FRAME + 2 * REACH, 1))
        wide[REACH + down : REACH + down + side, REACH + right : REACH + right + side] = scan
        image += wide[REACH:-REACH, REACH:-REACH] * (255 - MEAN)
    return np.round(images).astype(np.uint8), labels


class Perceptron(nn.Module):
    """Two hidden layers, to which each place of a digit is another input."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: Any, train: bool) -> Any:
        """Images to logits, and no features."""
        hidden = images.reshape(len(images), -1)
        for layer in range(2):
            hidden = nn.relu(nn.Dense(256, name=f"hidden{layer}")(hidden))
        return nn.Dense(self.num_classes, name="head")(hidden), {}


def config_of(regularization: float, start: float, steps: int) -> ExperimentConfig:
    """One training: SGD, no augmentation but the learned one."""
    learned = (
        f"augerino(generators={GENERATORS}, start={start}, regularization={regularization}, "
        f"learning_rate_factor=10.0, copies={COPIES})"
    )
    return check(
        ExperimentConfig,
        {
            "data": {
                "name": "digits",
                **dict.fromkeys(("image_size", "resize_size", "canvas_size"), FRAME),
            },
            "augment": {"name": "none", "learned": learned},
            "optimizer": {"learning_rate": 0.05, "weight_decay": 5e-4},
            "train": {"batch_size": 64, "steps": steps},
        },
    )


def make_run(config: ExperimentConfig, trained_first: bool) -> Callable[..., Any]:
    """`run(seed, images, labels) -> (state, raw widths after every step)`, one program.

    With `trained_first` the network is first trained for as many steps without augmentation, and
    widths are learned from there, as of a trained `none` model.
    """
    model = Perceptron()
    plain = config.model_copy(update={"augment": ExperimentConfig().augment})
    side = jnp.full(config.train.batch_size, FRAME)

    def steps(config: ExperimentConfig, key: Any) -> tuple[experiment.Experiment, Any]:
        built = experiment.make(config)
        step = make_train_step(
            model,
            built.augmentation.on_batch,
            built.mixing,
            built.optimizer,
            built.schedule,
            key,
            normalize=normalize,
            loss=built.loss,
            grad_accum_steps=1,
            ema_decay=0.0,
            learned=built.learned,
        )
        return built, step

    @jax.jit
    def run(seed: Any, images: Any, labels: Any) -> Any:
        def trained(step: Any, state: Any, key: Any) -> Any:
            def one(state: Any, order: Any) -> Any:
                batch = {"canvas": images[order], "label": labels[order], "index": order}
                batch |= {"height": side, "width": side}
                state, _ = step(state, TrainMetrics.empty(), batch)
                return state, state.params.get(COLLECTION)

            count = config.train.steps * config.train.batch_size
            keys = jax.random.split(key, -(-count // len(images)))
            order = jax.vmap(lambda key: jax.random.permutation(key, len(images)))(keys).ravel()
            return jax.lax.scan(one, state, order[:count].reshape(config.train.steps, -1))

        key = jax.random.key(seed)
        built, step = steps(config, key)
        widths = built.learned.initial(10)
        state = init_state(model, built.optimizer, key, FRAME, augmentation=widths)
        if trained_first:
            other, plain_step = steps(plain, key)
            found, _ = trained(
                plain_step,
                init_state(model, other.optimizer, key, FRAME),
                jax.random.fold_in(key, 2),
            )
            state = dataclasses.replace(state, params=state.params | found.params)
        return trained(step, state, jax.random.fold_in(key, 1))

    return run


def make_accuracy(config: ExperimentConfig) -> Callable[..., Any]:
    """`accuracy(state, images, labels) -> (plain, averaged over augmented copies)`."""
    built = experiment.make(config)

    @jax.jit
    def accuracy(state: Any, images: Any, labels: Any) -> Any:
        shown = normalize(images.astype(jnp.float32) / 255)
        keys = jax.random.split(jax.random.key(0), len(images))
        copies = built.learned(
            state.params[COLLECTION], shown, built.learned.draw(keys, COPIES), labels
        )
        plain, many = (
            Perceptron().apply(state.variables, x, train=False)[0] for x in (shown, copies)
        )
        averaged = mean_log_probability(many, COPIES)
        return [jnp.mean(scores.argmax(1) == labels) for scores in (plain, averaged)]

    return accuracy


def main() -> None:
    """Runs all, and writes and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--regularization", type=float, nargs="+", default=[0.0, 0.1, 0.01])
    parser.add_argument("--trained_first", action="store_true", help="the network, without it")
    parser.add_argument("--start", choices=("narrow", "wide"), default="narrow")
    parser.add_argument("--blur", type=int, default=2, choices=(0, 1, 2))
    folder = pathlib.Path(__file__).parent / "results"
    parser.add_argument("--output", type=pathlib.Path, default=folder / "learn_augmentation.json")
    options = parser.parse_args()
    sets = {
        name: tuple(digits(split, *how, options.blur) for split in ("train", "validation"))
        for name, how in DATA.items()
        if name in options.data
    }
    rows = []
    for strength in options.regularization:
        start = {"narrow": NARROW, "wide": WIDE}[options.start]
        config = config_of(strength, start, options.steps)
        run, accuracy = make_run(config, options.trained_first), make_accuracy(config)
        learned = experiment.make(config).learned
        for name, seed in itertools.product(sets, range(options.seeds)):
            train, test = sets[name]
            state, raw = run(seed, *train)
            every = np.asarray(raw)[:: max(1, options.steps // 30)]
            row = {"data": name, "regularization": strength, "blur": options.blur, "seed": seed}
            row |= {"start": options.start, "trained_first": options.trained_first}
            row |= learned.metrics(np.asarray(raw[-1]))
            plain, averaged = accuracy(state, *test)
            row |= {"top1": float(plain), "averaged_top1": float(averaged)}
            print(json.dumps(row), flush=True)
            rows.append(row | {"raw_widths": every.round(3).tolist()})
            found = {
                "device": jax.devices()[0].device_kind,
                "versions": json.loads(versions()),
                "settings": {
                    "steps": options.steps,
                    "frame": FRAME,
                    "digit": DIGIT,
                    "reach": REACH,
                },
                "runs": rows,
            }
            # After each: what is there can be looked at.
            options.output.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
