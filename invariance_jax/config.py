"""What an experiment's config holds, checked before any work.

The values stand in `configs/` and nowhere else; this module only says which fields exist, what
type each has, and what a value must be.
"""

import dataclasses
import json
import math
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from invariance_jax.errors import UserError, unknown_name
from invariance_jax.transforms import Domain

# How the label of a network begins that took its weights from a file.
WEIGHTS_LABEL = "weights "


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network.

    Attributes:
        name: One of `models.names()`, with options: `resnet18(stem='cifar')`.
        dtype: What it computes in, "float32" or "bfloat16"; parameters are float32 always.
        bn_group: How many images share BatchNorm statistics; 0 for the whole global batch (with
            `train.accumulate`, for a whole microbatch).
        weights: A `.safetensors` or `.npz` file with torchvision's or timm's names to start from;
            empty to draw the parameters from the seed.
        remat: Compute a block's activations again in the backward pass instead of keeping them:
            less memory, a third more work, the same numbers. Vision transformers only.
    """

    name: str
    dtype: str
    bn_group: int
    weights: str
    remat: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images.

    Attributes:
        name: "digits" (embedded) or a TFDS dataset with `image` and `label`.
        data_dir: The TFDS folder; empty for digits.
        train_split: Split to train on, in TFDS notation.
        validation_split: Split for accuracy.
        image_size: Side of what the model sees, pixels.
        resize_size: Shorter side before the centre crop (the paper: 256 for 224).
        canvas_size: Side of the canvas that images are decoded to; larger ones are shrunk to it.
        workers: Processes that decode; 0 to decode in threads.
        label_feature: The TFDS feature that holds the class, "label" as a rule.
        classes: Numbers or names of the classes to train and measure on; empty for all. Labels
            keep the data set's numbers.
        fraction: Share of each class that is trained on, above 0, at most 1.
        subset_seed: Which images of each class that share is.
        skip_bad_images: Whether training goes on with the next image where one cannot be decoded.
    """

    name: str
    data_dir: str
    train_split: str
    validation_split: str
    image_size: int
    resize_size: int
    canvas_size: int
    workers: int
    label_feature: str
    classes: tuple[int | str, ...]
    fraction: float
    subset_seed: int
    skip_bad_images: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The augmentation in training.

    Attributes:
        name: One of `augment.NAMES`, with options: `translate(t=0.1)`.
        policies: What follows on each image, in this order: `rand_augment(n=2, m=9)`,
            `auto_augment(policy='imagenet')`, `random_erasing(probability=0.25)`,
            `random_transform(name='rotate', strongest=3)`.
        mixing: What follows on each batch: `mixup(alpha=0.2)`, `cutmix(alpha=1.0)`; of several,
            one is drawn every step.
    """

    name: str
    policies: tuple[str, ...]
    mixing: tuple[str, ...]

    @property
    def label(self) -> str:
        """All of it in one line, for tables and file names."""
        return " + ".join((self.name, *self.policies, *self.mixing))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How parameters move.

    Attributes:
        name: `sgd(momentum=0.9)`, `adamw(b2=0.999)` or `lamb(b2=0.999)`.
        learning_rate: Peak learning rate.
        schedule: `constant`, `cosine` (to 0 at the last step) or `step(every=N, factor=0.1)`.
        warmup_steps: Steps of linear warm-up from 0, part of `train.steps`.
        weight_decay: Coupled (L2) for sgd, decoupled for adamw and lamb.
        weight_decay_on: "all" parameters, as the paper, or "kernels" only: not norms, biases,
            tokens and position embeddings.
        clip_norm: Largest norm of the whole gradient, longer ones are shortened; 0 for no limit.
    """

    name: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    weight_decay: float
    weight_decay_on: Literal["all", "kernels"]
    clip_norm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training run.

    Attributes:
        batch_size: Images a step, over all devices.
        steps: Steps in all.
        log_every: Steps between two lines of metrics.
        evaluate_every: Steps between two validations; the last step is always validated.
        checkpoint_every: Steps between two checkpoints; the last step is always saved.
        keep_checkpoints: How many checkpoints stay.
        label_smoothing: Share of the target spread over all classes, 0 to 1.
        loss: `cross_entropy` or `binary_cross_entropy(threshold=None)`.
        accumulate: Parts that a batch is computed in, one after another, for one update.
        ema: Decay of the moving average of parameters that is validated and exported; 0 for none.
    """

    batch_size: int
    steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep_checkpoints: int
    label_smoothing: float
    loss: str
    accumulate: int
    ema: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Accuracy and invariance of a finished model.

    Attributes:
        split: Split on which invariance is measured, in TFDS notation: `validation[:1000]`.
        batch_size: Images a forward pass in the validation.
        grid_batch_size: Images that one device embeds in one forward pass of the invariance
            grid; 0 for as many as fit into `memory`.
        memory: Bytes of a device's memory that the grid may fill, by estimate; read only where
            `grid_batch_size` is 0.
        shard_size: Images of one part of the grid that is saved as a whole: after an
            interruption at most so many are computed again.
        features: Features that are compared beside the embedding, by the names that the model
            gives them: `("stage1_block1",)`.
        pooling: How feature maps become vectors: "mean" over pixels or tokens, or "none" to
            keep every position.
        equivariance: Whether to measure equivariance too; needs disk space for cells x images x
            features float32 until it is done.
        per_class: Whether to add percentiles over the images of each class.
        domain: What the grid's transforms act on: "pixel" values, or "normalized" ones as in the
            paper's own code.
        translation: What translations show where the image has left: "zero" is black, as in the
            paper; "cyclic" its other side; "context" what stood beside the centre crop.
        lie: Generators of the local equivariance error, of `transforms.generators.NAMES`, with
            options: `translate_x(padding_mode='wrap')`; none to leave it out.
        test_time: Ways to crop test images, of `augment.NAMES`, with options:
            `scaled_center_crop(k=3)`. Accuracy is measured under each, image by image and class by
            class; none to leave it out.
        seed: Seed of the permutation behind the baseline, and of random test-time crops.
    """

    split: str
    batch_size: int
    grid_batch_size: int
    memory: int
    shard_size: int
    features: tuple[str, ...]
    pooling: Literal["mean", "none"]
    equivariance: bool
    per_class: bool
    domain: Domain
    translation: Literal["zero", "cyclic", "context"]
    lie: tuple[str, ...]
    test_time: tuple[str, ...]
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The devices.

    Attributes:
        data: Parts that the batch is divided into; 0 for as many as there are devices for.
        model: Devices that share each of these parts; above 1 with `parameters` "tensor".
        parameters: "replicated"; "fsdp", each array divided over the data axis; or "tensor", the
            blocks of a vision transformer divided over the model axis.
        peak_flops: What one device can do at best in bfloat16, multiplications and additions per
            second, of which utilisation is a share; 0 to look it up by the device's name.
    """

    data: int
    model: int
    parameters: Literal["replicated", "fsdp", "tensor"]
    peak_flops: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One experiment, as `configs/*.py` define it.

    Attributes:
        seed: Of parameters, shuffling and augmentation.
        model: The network.
        data: The images.
        augment: The augmentation.
        optimizer: How parameters move.
        train: The training run.
        eval: Accuracy and invariance.
        mesh: The devices.
    """

    seed: int
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig
    mesh: MeshConfig

    def training_label(self, steps: int) -> str:
        """Says in one line how a model came to be, for tables and file names.

        Args:
            steps: Steps that it has been trained.

        Returns:
            The augmentation of a trained model, the file that an untrained one took its weights
            from, or "untrained".
        """
        if steps:
            return self.augment.label
        if self.model.weights:
            return WEIGHTS_LABEL + pathlib.Path(self.model.weights).name
        return "untrained"

    def to_json(self) -> str:
        """The config as JSON text with sorted keys."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """A grid of experiments: every model with every augmentation and seed.

    Attributes:
        experiment: What all of them share.
        models: Model names.
        augmentations: Augmentation names.
        seeds: Seeds.
    """

    experiment: ExperimentConfig
    models: tuple[str, ...]
    augmentations: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep: every config with every override and seed.

    Attributes:
        configs: Config files, each with its argument if it takes one.
        overrides: Each one run's changes, as flags without `--config.`: `augment.name=none`,
            several separated by spaces; empty for none.
        seeds: Seeds.
        evaluate: What is measured after each training, of "trained" and "untrained".
    """

    configs: tuple[str, ...]
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    evaluate: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("configs", "seeds"):
            if not getattr(self, name):
                raise UserError(f"sweep.{name} is empty; expected at least one")
        for kind in self.evaluate:
            if kind not in ("trained", "untrained"):
                raise UserError(
                    f"sweep.evaluate: {unknown_name('network', kind, ('trained', 'untrained'))}"
                )


# Ranges of numbers, ends included; the type alone would let a slip through.
_FROM_0, _FROM_1 = (0, math.inf), (1, math.inf)
_RANGES = {
    "bn_group": _FROM_0,
    "image_size": _FROM_1,
    "canvas_size": _FROM_1,
    "workers": _FROM_0,
    "learning_rate": _FROM_0,
    "warmup_steps": _FROM_0,
    "weight_decay": _FROM_0,
    "clip_norm": _FROM_0,
    "batch_size": _FROM_1,
    "grid_batch_size": _FROM_0,
    "memory": _FROM_1,
    "shard_size": _FROM_1,
    "steps": _FROM_1,
    "log_every": _FROM_1,
    "evaluate_every": _FROM_1,
    "checkpoint_every": _FROM_1,
    "keep_checkpoints": _FROM_1,
    "label_smoothing": (0, 1),
    "fraction": (0, 1),
    "subset_seed": _FROM_0,
    "accumulate": _FROM_1,
    "ema": (0, 1),
    "data": _FROM_0,
    "model": _FROM_1,
    "peak_flops": _FROM_0,
    "seed": (0, 2**31 - 1),
}

C = typing.TypeVar("C")


def from_config_dict(
    kind: type[C], values: ml_collections.ConfigDict | Mapping[str, Any], path: str = "config"
) -> C:
    """Checks a config and gives it types.

    Args:
        kind: One of this module's dataclasses.
        values: What a config file returned, or what a workdir stored.
        path: How error messages call it.

    Returns:
        The config, frozen.

    Raises:
        UserError: A field is unknown, missing, of another type or out of range.
    """
    fields = typing.get_type_hints(kind)
    for name in values:
        if name not in fields:
            raise UserError(f"{path}.{name}: {unknown_name('field', name, fields)}")
    missing = [name for name in fields if name not in values]
    if missing:
        raise UserError(f"{path}.{missing[0]} is missing; {path} needs: {', '.join(fields)}")
    checked = {
        name: _checked(expected, values[name], f"{path}.{name}", name)
        for name, expected in fields.items()
    }
    return kind(**checked)


def _checked(expected: Any, value: Any, path: str, name: str) -> Any:
    """One field's value, of the type expected."""
    if dataclasses.is_dataclass(expected):
        if not isinstance(value, Mapping | ml_collections.ConfigDict):
            raise _wrong_type(path, value, "a group of fields")
        return from_config_dict(expected, value, path)
    if isinstance(expected, types.GenericAlias):
        (item, _) = typing.get_args(expected)
        if not isinstance(value, tuple | list):
            raise _wrong_type(path, value, f"a tuple of {_type_name(item)}")
        return tuple(_checked(item, each, f"{path}[{i}]", name) for i, each in enumerate(value))
    if typing.get_origin(expected) is Literal:
        choices = typing.get_args(expected)
        if value not in choices:
            raise UserError(f"{path}: {unknown_name(name, value, choices)}")
        return value
    if isinstance(expected, types.UnionType):
        if type(value) not in typing.get_args(expected):
            raise _wrong_type(path, value, _type_name(expected))
        return value
    if expected is float and type(value) is int:
        value = float(value)
    if type(value) is not expected:
        raise _wrong_type(path, value, expected.__name__)
    low, high = _RANGES.get(name, (-math.inf, math.inf)) if expected in (int, float) else (0, 0)
    if expected in (int, float) and not low <= value <= high:
        limit = f"at least {low}" if high == math.inf else f"{low} to {high}"
        raise UserError(f"{path} is {value}; expected {limit}")
    return value


def _type_name(expected: Any) -> str:
    return " or ".join(each.__name__ for each in typing.get_args(expected) or (expected,))


def _wrong_type(path: str, value: Any, expected: str) -> UserError:
    return UserError(f"{path} is {value!r} ({type(value).__name__}); expected {expected}")


def differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two configs.

    Args:
        ours: One config.
        theirs: The other.

    Returns:
        Path of the field, as in `train.steps`, to (our value, their value).
    """
    flat_ours, flat_theirs = _flat(dataclasses.asdict(ours)), _flat(dataclasses.asdict(theirs))
    return {
        path: (flat_ours[path], flat_theirs[path])
        for path in flat_ours
        if flat_ours[path] != flat_theirs[path]
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
