"""What an experiment's config holds: each field once.

A field stands in one place with its type, default, range, meaning (the text under it) and what it
changes. Everything else is derived from that: the checks, `--help`, what a resumed run may change
and what identifies a result. A config file says only what differs from the defaults; a stored
config that lacks a newer field is read with that field's default.
"""

import ast
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar, get_origin

import ml_collections
import pydantic
from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from invariance_jax.errors import UserError, unknown_name

# How the label of a network begins that took its weights from a file.
WEIGHTS_LABEL = "weights "
# Counts, sizes and seeds become int32 on the devices.
_LARGEST = 2**31 - 1

# What a field changes: the training, everything that is measured, or the measurements named.
_TRAINING = "training"
EVERY_MEASUREMENT = "every measurement"
# Those that have no fields of their own: their options stand in `eval.measurements`.
OTHER_MEASUREMENTS = "other measurements"


def _field(default: Any, *changes: str, **limits: Any) -> Any:
    return Field(default, json_schema_extra={"changes": list(changes)}, **limits)


def training(default: Any, *, measures: str | tuple[str, ...] = (), **limits: Any) -> Any:
    """Declares a field that changes what is trained: a run cannot go on with another value.

    Args:
        default: The value where nothing is said.
        measures: The measurements that it changes too, or `EVERY_MEASUREMENT`.
        **limits: Range, as pydantic names it: `ge`, `gt`, `le`, `lt`.

    Returns:
        The field.
    """
    names = (measures,) if isinstance(measures, str) else measures
    return _field(default, _TRAINING, *names, **limits)


def measurement(default: Any, *measures: str, **limits: Any) -> Any:
    """Declares a field that changes what is measured, and part of what identifies the result.

    Args:
        default: The value where nothing is said.
        *measures: The measurements that it changes, or `EVERY_MEASUREMENT`.
        **limits: Range, see `training`.

    Returns:
        The field.
    """
    return _field(default, *measures, **limits)


def execution(default: Any, **limits: Any) -> Any:
    """Declares a field that changes how a run is executed and no number of it.

    Args:
        default: The value where nothing is said.
        **limits: Range, see `training`.

    Returns:
        The field.
    """
    return _field(default, **limits)


def _whole(value: Any) -> Any:
    """1e4 steps are 10000."""
    return int(value) if type(value) is float and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole), Field(le=_LARGEST, ge=-_LARGEST)]
# Bytes and operations per second exceed what steps and images do.
Large = Annotated[int, BeforeValidator(_whole), Field(le=2**62)]


class Section(pydantic.BaseModel):
    """A frozen group of checked fields."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        ignored_types=(property,),
    )

    def with_values(self, **values: Any) -> Self:
        """Replaces fields and checks the result.

        Args:
            **values: Fields by name, sections as mappings of the fields that change:
                `config.with_values(seed=1, model={"name": "resnet18"})`.

        Returns:
            The new section.

        Raises:
            UserError: A field is unknown, of another type or out of range.
        """
        return check(type(self), merged(self.to_dict(), values))

    def to_dict(self) -> dict[str, Any]:
        """The fields as nested dicts; tuples stay tuples."""
        return self.model_dump()


class ModelConfig(Section):
    """The network."""

    name: str = training("resnet18")
    """One of `models.names()`, with options: `resnet18(stem='cifar')`."""
    dtype: Literal["float32", "bfloat16"] = training("float32", measures=EVERY_MEASUREMENT)
    """What it computes in; parameters are float32 always."""
    ghost_batch_size: Whole = training(0, ge=0)
    """Images that share BatchNorm statistics in training, as the part of the batch on one GPU did
    in the paper; 0 for the whole batch (with `train.grad_accum_steps`, a whole microbatch)."""
    weights: str = training("")
    """A `.safetensors` or `.npz` file with torchvision's or timm's names to start from; empty to
    draw the parameters from the seed."""
    remat: bool = execution(False)
    """Compute a block's activations again in the backward pass instead of keeping them: less
    memory, a third more work, the same numbers. Vision transformers only."""


class DataConfig(Section):
    """The images."""

    name: str = training("imagenet2012", measures=EVERY_MEASUREMENT)
    """"digits" (embedded), "folder" (image files in `data_dir`), or a TFDS data set with `image`
    and `label`."""
    data_dir: str = execution("")
    """The TFDS folder, or the folder of images; empty for digits."""
    train_split: str = training("train")
    """Split to train on, in TFDS notation."""
    validation_split: str = training("validation", measures=("accuracy", "test_time"))
    """Split for accuracy."""
    image_size: Whole = training(224, measures=EVERY_MEASUREMENT, ge=1)
    """Side of what the model sees, pixels."""
    resize_size: Whole = training(256, measures=EVERY_MEASUREMENT, ge=1)
    """Shorter side before the centre crop (the paper: 256 for 224)."""
    canvas_size: Whole = training(512, measures=EVERY_MEASUREMENT, ge=1)
    """Side of the padded square that images are decoded to; larger ones are shrunk to it."""
    workers: Whole = execution(0, ge=0, le=1024)
    """Processes that decode; 0 to decode in threads."""
    label_feature: str = training("label", measures=EVERY_MEASUREMENT)
    """The TFDS feature that holds the class."""
    classes: tuple[int | str, ...] = training((), measures=EVERY_MEASUREMENT)
    """Numbers or names of the classes to train and measure on; empty for all. Labels keep the data
    set's numbers."""
    fraction: float = training(1.0, gt=0, le=1)
    """Share of each class that is trained on."""
    subset_seed: Whole = training(0, ge=0)
    """Which images of each class that share is."""
    skip_bad_images: bool = training(False)
    """Whether training goes on with the next image where one cannot be decoded."""


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

    @property
    def label(self) -> str:
        """All of it in one line, for tables and file names."""
        return " + ".join((self.name, *self.policies, *self.mixing))


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
    grad_clip_norm: float = training(0.0, ge=0)
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
    grad_accum_steps: Whole = training(1, ge=1)
    """Parts that a batch is computed in, one after another, for one update."""
    ema_decay: float = training(0.0, ge=0, le=1)
    """Decay of the moving average of parameters that is validated and exported; 0 for none."""


_GRID = "invariance"
_LOCAL = "local_equivariance"


class EvalConfig(Section):
    """What is measured of a model."""

    split: str = measurement("validation", _GRID, _LOCAL, OTHER_MEASUREMENTS)
    """Split on which invariance is measured, in TFDS notation: `validation[:1000]`."""
    measurements: tuple[str, ...] = execution(("accuracy", "invariance"))
    """What to measure, of `evaluation.MEASUREMENTS`, with options; `local_equivariance` and
    `test_time` are added where their fields ask for something."""
    per_device_batch_size: Whole = execution(0, ge=0)
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
    padding_mode: Literal["constant", "wrap", "context"] = measurement("constant", _GRID)
    """What translations show where the image has left: "constant" is black, as in the paper; "wrap"
    its other side; "context" what stood beside the centre crop."""
    local_equivariance: tuple[str, ...] = measurement((), _LOCAL)
    """Generators of the local equivariance error, of `transforms.generators.NAMES`, with options:
    `translate_x(padding_mode='wrap')`; none to leave it out."""
    test_time: tuple[str, ...] = measurement((), "test_time")
    """Ways to crop test images, of `augment.NAMES`, with options: `scaled_center_crop(k=3)`.
    Accuracy is measured under each, image by image and class by class; none to leave it out."""
    seed: Whole = measurement(0, _GRID, "test_time", OTHER_MEASUREMENTS, ge=0)
    """Seed of the permutation behind the baseline, and of random test-time crops."""


class MeshConfig(Section):
    """The devices."""

    data: Whole = execution(0, ge=0)
    """Parts that the batch is divided into; 0 for as many as there are devices for."""
    model: Whole = execution(1, ge=1)
    """Devices that share each of these parts; above 1 with `parameters` "tensor"."""
    parameters: Literal["replicated", "fsdp", "tensor"] = execution("replicated")
    """"replicated"; "fsdp", each array divided over the data axis; or "tensor", the blocks of a
    vision transformer divided over the model axis."""
    peak_flops: float = execution(0.0, ge=0)
    """What one device can do at best in bfloat16, multiplications and additions per second, of
    which utilisation is a share; 0 to look it up by the device's name."""


class ExperimentConfig(Section):
    """One experiment, as `configs/*.py` define it."""

    seed: Whole = training(0, ge=0)
    """Of parameters, shuffling and augmentation."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
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
            return WEIGHTS_LABEL + pathlib.Path(self.model.weights).name
        return "untrained"

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


# Old names of fields, as earlier versions stored them, and what became of their values. None: of no
# meaning any more.
_RENAMED: Mapping[str, str | None] = {
    "model.bn_group": "model.ghost_batch_size",
    "optimizer.clip_norm": "optimizer.grad_clip_norm",
    "train.accumulate": "train.grad_accum_steps",
    "train.ema": "train.ema_decay",
    "eval.batch_size": None,
    "eval.grid_batch_size": "eval.per_device_batch_size",
    "eval.lie": "eval.local_equivariance",
    "eval.translation": "eval.padding_mode",
}
_OLD_WORDS = {
    "eval.padding_mode": (("zero", "constant"), ("cyclic", "wrap")),
    "eval.local_equivariance": (
        ("edge='zero'", "padding_mode='constant'"),
        ("edge='cyclic'", "padding_mode='wrap'"),
    ),
}

C = TypeVar("C", bound=Section)


def check(kind: type[C], values: Any, path: str = "config") -> C:
    """Checks a config and gives it types.

    Args:
        kind: `ExperimentConfig`, or another section.
        values: What a config file returned, or what a workdir stored, as a mapping; fields that are
            missing take their defaults, names of earlier versions are read.
        path: How error messages call it.

    Returns:
        The config, frozen.

    Raises:
        UserError: A field is unknown, of another type or out of range.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    try:
        return kind.model_validate(_modern(kind, values, ""))
    except pydantic.ValidationError as error:
        raise _explained(error.errors()[0], kind, path) from None


def _modern(kind: Any, values: Any, prefix: str) -> Any:
    """The same with today's names and words, and tuples where JSON has lists."""
    if not isinstance(values, Mapping):
        return _modern_value(prefix.removesuffix("."), values)
    found = {}
    for name, value in values.items():
        path = _RENAMED.get(prefix + name, prefix + name)
        if path is not None:
            inner = kind.model_fields.get(name) if _is_section(kind) else None
            found[path.removeprefix(prefix)] = _modern(
                inner.annotation if inner else None, value, f"{path}."
            )
    return found


def _modern_value(path: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_modern_value(path, each) for each in value)
    for old, new in _OLD_WORDS.get(path, ()) if isinstance(value, str) else ():
        value = value.replace(old, new)
    return value


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


_EXPECTED = {
    "model_type": "a group of fields",
    "dict_type": "a group of fields",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "True or False",
    "tuple_type": "a tuple",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
}
_LONGEST = 80  # characters of a value that an error shows


def _explained(error: Any, kind: type[Section], path: str) -> UserError:
    """A mistake in the package's words."""
    value, context = error["input"], error.get("ctx", {})
    # The rest of the location is the way through the types: of a union, say.
    within: Any = kind
    for name in error["loc"]:
        if _is_section(within) and name in within.model_fields:
            path, within = f"{path}.{name}", within.model_fields[name].annotation
        elif isinstance(name, int):
            path = f"{path}[{name}]"
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        return UserError(f"{path}.{name}: {unknown_name('field', name, within.model_fields)}")
    if error["type"] == "literal_error":
        choices = context["expected"].replace("' or '", "', '").strip("'").split("', '")
        return UserError(f"{path}: {unknown_name(path.rpartition('.')[2], value, choices)}")
    text = _EXPECTED.get(error["type"], error["msg"].removeprefix("Input should be "))
    limits = {
        name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()
    }
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}..."
    return UserError(
        f"{path} is {shown} ({type(value).__name__}); expected {text.format(**limits)}"
    )


def fields(kind: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Lists the fields of a config with those of its sections.

    Args:
        kind: `ExperimentConfig`, or another section.
        prefix: What the paths begin with.

    Yields:
        Path, as in "train.steps", and the field.
    """
    for name, field in kind.model_fields.items():
        if _is_section(field.annotation):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _changes(field: FieldInfo) -> Sequence[str]:
    return field.json_schema_extra["changes"]


# Fields whose values a run cannot change when it goes on.
TRAINING_FIELDS = frozenset(
    path for path, field in fields(ExperimentConfig) if _TRAINING in _changes(field)
)
# Fields of the training alone: a finished network cannot be measured with other values.
TRAINED_FIELDS = frozenset(
    path for path, field in fields(ExperimentConfig) if list(_changes(field)) == [_TRAINING]
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
    named = {name for _, field in fields(ExperimentConfig) for name in _changes(field)}
    wanted = {EVERY_MEASUREMENT, measurement if measurement in named else OTHER_MEASUREMENTS}
    found = {
        f"config.{path}": values[path]
        for path, field in fields(ExperimentConfig)
        if wanted & set(_changes(field))
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


def differences(ours: Section, theirs: Section) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two configs.

    Args:
        ours: One config.
        theirs: The other, of the same kind.

    Returns:
        Path of the field, as in "train.steps", to (our value, their value).
    """
    flat_ours, flat_theirs = flatten(ours.to_dict()), flatten(theirs.to_dict())
    return {
        path: (value, flat_theirs[path])
        for path, value in flat_ours.items()
        if value != flat_theirs[path]
    }


def renamed(path: str) -> str | None:
    """Says what a field is called now.

    Args:
        path: A field's path, as in "train.steps", of this version or an earlier one.

    Returns:
        The path; None for a field that has no meaning any more.

    Examples:
        >>> renamed("train.ema")
        'train.ema_decay'
    """
    return _RENAMED.get(path, path)


def parse_value(kind: type[Section], path: str, text: str) -> Any:
    """Reads a field's value as people type it.

    Args:
        kind: The config.
        path: The field's path, as in "train.steps".
        text: `600`, `1e4`, `True`, `yes`, `(0, 1)`, `stage1_block1`.

    Returns:
        The value, not checked yet; the text itself where it is no literal.

    Raises:
        UserError: No such field, or a section.
    """
    field = _field_at(kind, path)
    if field.annotation is str:
        return text
    if field.annotation is bool and text.lower() in _SWITCHES:
        return _SWITCHES[text.lower()]
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if get_origin(field.annotation) is tuple and not isinstance(value, tuple | list):
        return (value,)
    return value


_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _field_at(kind: type[Section], path: str) -> FieldInfo:
    where, within = "config", kind
    *sections, last = path.split(".")
    for name in (*sections, last):
        if not _is_section(within):
            raise UserError(f"--{where}.{name}: {where} is one value, without fields")
        if name not in within.model_fields:
            raise UserError(f"--{where}.{name}: {unknown_name('field', name, within.model_fields)}")
        field = within.model_fields[name]
        where, within = f"{where}.{name}", field.annotation
    if _is_section(within):
        names = ", ".join(within.model_fields)
        raise UserError(
            f"--{where} is a group of fields: {names}; set one of them, as in "
            f"--{where}.{next(iter(within.model_fields))}=VALUE"
        )
    return field


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lays one nested mapping over another.

    Args:
        base: Nested mapping.
        changes: What differs, nested likewise.

    Returns:
        A new nested dict.
    """
    found = dict(base)
    for name, value in changes.items():
        below = found.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        found[name] = merged(below, value) if both else value
    return found


def describe(kind: type[Section]) -> str:
    """Lists the fields for `--help`.

    Args:
        kind: The config.

    Returns:
        A line a field: path, default, meaning.
    """
    return "\n".join(
        f"  --config.{path}={field.default!r}: {' '.join((field.description or '').split())}"
        for path, field in fields(kind)
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Lays nested mappings out flat.

    Args:
        values: The mapping.
        prefix: What the paths begin with.

    Returns:
        Path to value.

    Examples:
        >>> flatten({"train": {"steps": 5}, "seed": 0})
        {'train.steps': 5, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
