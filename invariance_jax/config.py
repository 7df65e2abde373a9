"""What an experiment's config holds: each field once.

A field stands in one place with its type, default, range, meaning (the text under it) and what it
changes; `fields.py` derives the checks, `--help` and the reading of old configs from that. A config
file says only what differs from the defaults; a stored config that lacks a newer field is read with
that field's default.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from invariance_jax.fields import (
    EVERY_MEASUREMENT,
    OTHER_MEASUREMENTS,
    TRAINING,
    Large,
    Section,
    Whole,
    changes,
    check,
    execution,
    fields,
    flatten,
    measurement,
    training,
)

# How the label of a network begins that took its weights from a file.
WEIGHTS_LABEL = "weights "


def _in_new_words(*words: tuple[str, str]) -> BeforeValidator:
    """Reads what earlier versions called otherwise."""

    def read(value: Any) -> Any:
        for old, new in words if isinstance(value, str) else ():
            value = value.replace(old, new)
        return value

    return BeforeValidator(read)


PaddingMode = Annotated[
    Literal["constant", "wrap", "context"],
    _in_new_words(("zero", "constant"), ("cyclic", "wrap")),
]
Generator = Annotated[
    str,
    _in_new_words(
        ("edge='zero'", "padding_mode='constant'"), ("edge='cyclic'", "padding_mode='wrap'")
    ),
]


Colour = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]
Deviation = tuple[Positive, Positive, Positive]
_ACCURACIES = ("accuracy", "test_time", "averaged_accuracy")


class ModelConfig(Section):
    """The network."""

    name: str = training("resnet18")
    """One of `models.names()`, with options: `resnet18(stem='cifar')`."""
    dtype: Literal["float32", "bfloat16"] = training("float32", measures=EVERY_MEASUREMENT)
    """What it computes in; parameters are float32 always."""
    ghost_batch_size: Whole = training(0, ge=0, was="bn_group")
    """Images that share BatchNorm statistics in training, as the part of the batch on one GPU did
    in the paper; 0 for the whole batch (with `train.grad_accum_steps`, a whole microbatch)."""
    weights: str = training("")
    """A file of weights to start from, or a folder with one, in any form of docs/models.md; empty
    to draw the parameters from the seed."""
    which_weights: Literal["auto", "plain", "ema"] = training("auto")
    """Of weights and their moving average in one file; "auto" reads the plain ones, or the only
    ones."""
    resample_pos_embed: bool = training(False)
    """Resample position embeddings in `weights` that were made for images of another size."""
    remat: bool = execution(False)
    """Compute a block's activations again in the backward pass instead of keeping them: less
    memory, a third more work, the same numbers. Vision transformers only."""


class DataConfig(Section):
    """The images."""

    name: str = training("imagenet2012", measures=EVERY_MEASUREMENT)
    """"digits" (embedded), "folder" (image files in `data_dir`), "arrow" (there what Hugging Face's
    `save_to_disk` wrote, or parquet files), or a TFDS data set with `image` and `label`."""
    data_dir: str = execution("")
    """The TFDS folder, or the folder of images or tables; empty for digits."""
    train_split: str = training("train")
    """Split to train on, in TFDS notation."""
    validation_split: str = training("validation", measures=_ACCURACIES)
    """Split for accuracy."""
    image_size: Whole = training(224, measures=EVERY_MEASUREMENT, ge=1)
    """Side of what the model sees, pixels."""
    resize_size: Whole = training(256, measures=EVERY_MEASUREMENT, ge=1)
    """Shorter side before the centre crop (the paper: 256 for 224)."""
    canvas_size: Whole = training(512, measures=EVERY_MEASUREMENT, ge=1)
    """Side of the padded square that images are decoded to; larger ones are shrunk to it."""
    interpolation: Literal["bilinear", "bicubic"] = training("bilinear", measures=EVERY_MEASUREMENT)
    """The filter of every resize, antialiased as Pillow's: "bilinear", as the paper, or "bicubic",
    as most of timm's weights want it."""
    squash: bool = training(False, measures=EVERY_MEASUREMENT)
    """Whether a resize makes images square, whatever their aspect, before the centre crop, as most
    of Hugging Face's weights and timm's "squash" want it."""
    mean: Colour = training((0.485, 0.456, 0.406), measures=EVERY_MEASUREMENT)
    """What is subtracted from red, green and blue in [0, 1]; ImageNet's, as torchvision's weights
    want it. timm's own weights of vision transformers want `(0.5, 0.5, 0.5)`, as `std` too."""
    std: Deviation = training((0.229, 0.224, 0.225), measures=EVERY_MEASUREMENT)
    """What is then divided by."""
    workers: Whole = execution(0, ge=0, le=1024)
    """Processes that decode; 0 to decode in threads."""
    label_feature: str = training("label", measures=EVERY_MEASUREMENT)
    """The TFDS feature, or the column, that holds the class."""
    classes: tuple[int | str, ...] = training((), measures=EVERY_MEASUREMENT)
    """Numbers or names of the classes to train and measure on; empty for all. Labels keep the data
    set's numbers."""
    fraction: float = training(1.0, gt=0, le=1)
    """Share of each class that is trained on."""
    subset_seed: Whole = training(0, ge=0)
    """Which images of each class that share is."""
    skip_bad_images: bool = training(False)
    """Whether training goes on with the next image where one cannot be decoded."""
    shuffle_seed: Whole | None = training(None, ge=0)
    """Of the order of training images; None for the run's `seed`. Runs that share a program
    (`ablate`) have one order."""


class AugmentConfig(Section):
    """The augmentation in training."""

    name: str = training("random_resized_crop_flip")
    """One of `augment.NAMES`, with options: `translate(t=0.1)`."""
    policies: tuple[str, ...] = training(())
    """What follows on each image, in this order: `rand_augment(n=2, m=9)`,
    `auto_augment(policy='imagenet')`, `random_erasing(probability=0.25)`,
    `random_transform(name='rotate', strongest=3)`."""
    mixing: tuple[str, ...] = training(())
    """What follows on each batch: `mixup(alpha=0.2)`, `cutmix(alpha=1.0)`; of several, one is drawn
    every step."""
    learned: str = training("")
    """What follows on normalised images with strengths that are learned: `augerino(generators=(
    'translate_x', 'translate_y', 'scale'), regularization=0.1)`; empty for nothing. The paper's
    follows on `none`."""
    per_class: str = training("")
    """What images get because of their class: the rows that a search found for it,
    `searched(file='DIR/similarity_search/NAME.nc', top=25, when='after')`, or named ones,
    `named(rows='shear_x 5', classes='n03291819')`; empty for nothing. docs/factors.md has the
    options."""

    @property
    def label(self) -> str:
        """All of it in one line, for tables and file names."""
        of_classes = re.sub(r"""(file=['"])[^'"]*/""", r"\1", self.per_class)
        last = filter(None, (self.learned, of_classes))
        return " + ".join((self.name, *self.policies, *self.mixing, *last))


class OptimizerConfig(Section):
    """How parameters move."""

    name: str = training("sgd(momentum=0.9)")
    """`sgd(momentum=0.9)`, `adamw(b2=0.999)` or `lamb(b2=0.999)`."""
    learning_rate: float = training(0.1, ge=0)
    """Peak learning rate."""
    schedule: str = training("cosine")
    """`constant`, `cosine` (to 0 at the last step) or `step(every=N, factor=0.1)`."""
    warmup_steps: Whole = training(0, ge=0)
    """Steps of linear warm-up from 0, part of `train.steps`."""
    weight_decay: float = training(1e-4, ge=0)
    """Coupled (L2) for sgd, decoupled for adamw and lamb."""
    weight_decay_on: Literal["all", "kernels"] = training("all")
    """"all" parameters, as the paper, or "kernels" only: not norms, biases, tokens and position
    embeddings."""
    grad_clip_norm: float = training(0.0, ge=0, was="clip_norm")
    """Largest norm of the whole gradient, longer ones are shortened; 0 for no limit."""


class TrainConfig(Section):
    """The training run."""

    batch_size: Whole = training(256, ge=1)
    """Images a step, over all devices."""
    steps: Whole = training(1000, ge=1)
    """Steps in all."""
    log_every: Whole = execution(100, ge=1)
    """Steps between two lines of metrics."""
    evaluate_every: Whole = execution(1000, ge=1)
    """Steps between two validations; the last step is always validated."""
    checkpoint_every: Whole = execution(1000, ge=1)
    """Steps between two checkpoints; the last step is always saved."""
    keep_checkpoints: Whole = execution(2, ge=1)
    """How many checkpoints stay, the best not counted."""
    label_smoothing: float = training(0.0, ge=0, le=1)
    """Share of the target spread over all classes."""
    loss: str = training("cross_entropy")
    """`cross_entropy` or `binary_cross_entropy(threshold=None)`."""
    grad_accum_steps: Whole = training(1, ge=1, was="accumulate")
    """Parts that a batch is computed in, one after another, for one update."""
    ema_decay: float = training(0.0, ge=0, le=1, was="ema")
    """Decay of the moving average of parameters that is validated and exported; 0 for none."""


_GRID = "invariance"
_LOCAL = "local_equivariance"


class EvalConfig(Section):
    """What is measured of a model."""

    no_more = ("batch_size",)

    split: str = measurement("validation", _GRID, _LOCAL, OTHER_MEASUREMENTS)
    """Split on which invariance is measured, in TFDS notation: `validation[:1000]`."""
    measurements: tuple[str, ...] = execution(("accuracy", "invariance"))
    """What to measure, of `evaluation.MEASUREMENTS`, with options; `local_equivariance` and
    `test_time` are added where their fields ask for something."""
    per_device_batch_size: Whole = execution(0, ge=0, was="grid_batch_size")
    """Images that one device embeds in one forward pass; 0 for as many as fit into `memory`."""
    memory: Large = execution(2**31, ge=1)
    """Bytes of a device's memory that a measurement may fill; read only where
    `per_device_batch_size` is 0."""
    shard_size: Whole = execution(512, ge=1)
    """Images of one part of a measurement that is saved as a whole: after an interruption at most
    so many are computed again."""
    features: tuple[str, ...] = measurement((), _GRID, _LOCAL)
    """Features that are compared beside the embedding, by the names that the model gives them:
    `("stage1_block1",)`."""
    pooling: Literal["mean", "none"] = measurement("mean", _GRID)
    """How feature maps become vectors: "mean" over pixels or tokens, or "none" to keep every
    position."""
    equivariance: bool = measurement(False, _GRID)
    """Whether to measure equivariance too; needs disk space for cells x images x features float32
    until it is done."""
    per_class: bool = execution(False)
    """Whether to add percentiles over the images of each class."""
    domain: Literal["pixel", "normalized"] = measurement("pixel", _GRID)
    """What the grid's transforms act on: "pixel" values, or "normalized" ones as in the paper's own
    code."""
    padding_mode: PaddingMode = measurement("constant", _GRID, was="translation")
    """What translations show where the image has left: "constant" is black, as in the paper; "wrap"
    its other side; "context" what stood beside the centre crop."""
    local_equivariance: tuple[Generator, ...] = measurement((), _LOCAL, was="lie")
    """Generators of the local equivariance error, of `transforms.generators.NAMES`, with options:
    `translate_x(padding_mode='wrap')`; none to leave it out."""
    test_time: tuple[str, ...] = measurement((), "test_time")
    """Ways to crop test images, of `augment.NAMES`, with options: `scaled_center_crop(k=3)`.
    Accuracy is measured under each, image by image and class by class; none to leave it out."""
    seed: Whole = measurement(0, _GRID, "test_time", "averaged_accuracy", OTHER_MEASUREMENTS, ge=0)
    """Seed of the permutation behind the baseline, and of random augmentations of test images."""


_SEARCH, _CHECKS = "similarity_search", "similarity_checks"


class SearchConfig(Section):
    """The similarity search, for what varies between the images of a class."""

    split: str = measurement("train", _SEARCH)
    """Split whose images are paired within each class, in TFDS notation."""
    rows: tuple[str, ...] = measurement(("all",), _SEARCH)
    """What is tried: "all" (the paper's 63 rows), "distinct" (47 of them: no copies, none that
    changes nothing), "sub_policies" (49 sequences of two), an operation of `AUTOAUGMENT` for its
    ten indices (`brightness`), or rows (`'rotate 4'`, `'posterize 5 + rotate 4'`)."""
    features: Literal["embedding", "logits"] = measurement("embedding", _SEARCH, _CHECKS)
    """Whose similarity is measured."""
    batch_size: Whole = measurement(32, _SEARCH, ge=2)
    """Consecutive images of a class of which the first half is paired with the second; even. 2
    pairs neighbours, and suits small classes. An incomplete last batch is dropped."""
    pairs_per_class: Whole = measurement(1000, _SEARCH, ge=1)
    """Most pairs of a class, rounded up to whole batches."""
    seed: Whole = measurement(0, _SEARCH, _CHECKS, ge=0)
    """Of the signs of operations and of the angles and pairs of classes of the checks."""
    checks_split: str = measurement("validation", _CHECKS)
    """Split on which the similarity itself is checked; empty to leave that out."""
    checks_pairs: Whole = measurement(100, _CHECKS, ge=1)
    """Most pairs of a class, and of two classes, in the checks."""
    checks_class_pairs: Whole = measurement(1000, _CHECKS, ge=1)
    """Most pairs of classes in the checks, drawn at random."""


class MeshConfig(Section):
    """The devices."""

    data: Whole = execution(0, ge=0)
    """Parts that the batch is divided into; 0 for as many as there are devices for."""
    model: Whole = execution(1, ge=1)
    """Devices that share each of these parts; above 1 with `parameters` "tensor"."""
    parameters: Literal["replicated", "fsdp", "tensor"] = execution("replicated")
    """"replicated"; "fsdp", each array divided over the data axis; or "tensor", the blocks of a
    vision transformer divided over the model axis."""
    run: Whole = execution(0, ge=0)
    """Groups of devices that runs which share a program (`ablate`) are divided over; 0 to choose by
    the numbers of devices and runs."""
    peak_flops: float = execution(0.0, ge=0)
    """What one device can do at best in bfloat16, multiplications and additions per second, of
    which utilisation is a share; 0 to look it up by the device's name."""


class ExperimentConfig(Section):
    """One experiment, as `configs/*.py` define it."""

    seed: Whole = training(0, ge=0)
    """Of parameters, augmentation and, without `data.shuffle_seed`, the order of images."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    search: SearchConfig = SearchConfig()
    mesh: MeshConfig = MeshConfig()

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
            average = " (ema)" if self.model.which_weights == "ema" else ""
            return WEIGHTS_LABEL + pathlib.Path(self.model.weights).name + average
        return "untrained"

    @property
    def order_seed(self) -> int:
        """Seed of the order of training images."""
        return self.seed if self.data.shuffle_seed is None else self.data.shuffle_seed

    def to_json(self) -> str:
        """The config as JSON text with sorted keys."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True)


class SweepConfig(Section):
    """A sweep: every config, variant and point of the axes."""

    configs: tuple[str, ...] = execution(())
    """Config files, each with its argument if it takes one."""
    axes: dict[str, Any] = execution({})
    """Values of fields, every one with every other, nested as in a config: `{"augment": {"name":
    ("none", "translate")}, "seed": (0, 1)}`."""
    variants: tuple[str, ...] = execution(())
    """Changes of several fields at once, each one run's, as flags without `--config.`:
    `"augment.name=none train.steps=600"`."""
    overrides: tuple[str, ...] = execution(())
    """What all runs share, likewise: `"train.steps=600"`."""
    evaluate: tuple[Literal["trained", "untrained"], ...] = execution(("trained", "untrained"))
    """What is measured after each training; an untrained network is measured once, whatever the
    runs train it with."""


# Fields whose values a run cannot change when it goes on.
TRAINING_FIELDS = frozenset(
    path for path, field in fields(ExperimentConfig) if TRAINING in changes(field)
)
# Fields of the training alone: a finished network cannot be measured with other values.
TRAINED_FIELDS = frozenset(
    path for path, field in fields(ExperimentConfig) if list(changes(field)) == [TRAINING]
)


def identity(config: ExperimentConfig, measurement: str) -> dict[str, Any]:
    """Says what of a config the result of a measurement depends on, beside the network.

    Args:
        config: The config.
        measurement: Name of the measurement.

    Returns:
        "config." and the field's path, to its value, as JSON has it.
    """
    values = flatten(config.to_dict())
    named = {name for _, field in fields(ExperimentConfig) for name in changes(field)}
    wanted = {EVERY_MEASUREMENT, measurement if measurement in named else OTHER_MEASUREMENTS}
    found = {
        f"config.{path}": values[path]
        for path, field in fields(ExperimentConfig)
        if wanted & set(changes(field))
    }
    return json.loads(json.dumps(found))


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Compares what two results depend on.

    Args:
        ours: From `identity`, with what else counts.
        theirs: What a result file holds, of this version or an earlier one.

    Returns:
        Names in which they differ, in our order. A config field that theirs lacks had its default.
    """
    stored: dict[str, Any] = {}
    for name, value in theirs.items():
        first, *path = name.split(".")
        if first == "config" and path:
            section = stored.setdefault(path[0], {}) if len(path) == 2 else stored
            section[path[-1]] = value
    config = json.loads(check(ExperimentConfig, stored).to_json())
    full = {**theirs, **flatten(config, "config.")}
    return [name for name in ours if name not in full or ours[name] != full[name]]
