"""From a checked config to the things it names, before any training."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from invariance_jax import augment, data, devices, models, spec
from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.training import optimizer, sharding
from invariance_jax.training.losses import Loss, make_loss
from invariance_jax.training.state import TrainState, init_state
from invariance_jax.transforms import Generator, generators


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a config names.

    Attributes:
        config: The config.
        mesh: The devices.
        model: The network.
        augmentation: What happens to each training image.
        mixing: What happens to batches of them.
        preprocess: What happens to images otherwise: `none`, as in the paper.
        test_time: Further ways to crop test images, by name.
        generators: What the local equivariance error is measured along.
        optimizer: The optimizer.
        schedule: Its learning rate.
        loss: What the optimizer makes small.
        train_source: Training images.
        validation_source: Images for accuracy.
        evaluation_source: Images for invariance.
    """

    config: ExperimentConfig
    mesh: Mesh
    model: nn.Module
    augmentation: augment.WithPolicies
    mixing: augment.OneMixing
    preprocess: Augmentation
    test_time: Mapping[str, Augmentation]
    generators: tuple[Generator, ...]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    loss: Loss
    train_source: data.Source
    validation_source: data.Source
    evaluation_source: data.Source

    @property
    def validation_batch_size(self) -> int:
        """Images of one batch of the validation, over all devices."""
        each = self.config.eval.per_device_batch_size or 32
        return each * self.mesh.shape[devices.DATA_AXIS]

    def init_state(self) -> TrainState:
        """The state before the first step, laid out as `config.mesh` says.

        Returns:
            The state, of parameters drawn from the seed or read from `config.model.weights`.

        Raises:
            UserError: The file of weights cannot be read or does not fit.
        """
        return self._state_of(self.load_weights(), self.abstract_state())

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state; nothing is computed or read.

        Returns:
            A `jax.ShapeDtypeStruct` for every array.

        Raises:
            UserError: `config.mesh` does not fit the model, or the model not the images.
        """
        return self._abstract_state

    @functools.cached_property
    def _abstract_state(self) -> TrainState:
        # To trace a large network takes seconds, and a run asks several times.
        shapes = jax.eval_shape(lambda: self._state_of(None, None))
        return sharding.lay_out(shapes, self.mesh, self.config.mesh.parameters)

    def load_weights(self) -> dict[str, Any] | None:
        """Reads the parameters and batch statistics that the config wants to start from.

        Returns:
            What `model.apply` takes, or None if the config names no file.

        Raises:
            UserError: The file cannot be read, or holds another network or image size.
        """
        config = self.config.model
        if not config.weights:
            return None
        try:
            name, options = spec.parse(config.name)
            arrays = models.load_weights(pathlib.Path(config.weights).expanduser())
            variables = models.import_weights(
                name, arrays, num_classes=self.model.num_classes, **options
            )
        except UserError as error:
            raise UserError(f"config.model.weights: {error}") from error
        expected = self.abstract_state().variables
        for (path, here), there in zip(
            jax.tree_util.tree_leaves_with_path(variables), jax.tree.leaves(expected), strict=True
        ):
            if here.shape != there.shape:
                raise UserError(
                    f"config.model.weights {config.weights!r}: {jax.tree_util.keystr(path)} has "
                    f"shape {here.shape}; config.data.image_size {self.config.data.image_size} "
                    f"needs {there.shape}"
                )
        return variables

    def _state_of(
        self, variables: dict[str, Any] | None, abstract: TrainState | None
    ) -> TrainState:
        return init_state(
            self.model,
            self.optimizer,
            jax.random.key(self.config.seed),
            self.config.data.image_size,
            variables=variables,
            ema=self.config.train.ema_decay > 0,
            shardings=abstract and jax.tree.map(lambda x: x.sharding, abstract),
        )


def make(config: ExperimentConfig) -> Experiment:
    """Builds everything that a config names and checks that it fits together.

    Args:
        config: A checked config.

    Returns:
        The experiment. Nothing has been computed on a device.

    Raises:
        UserError: A name, an option, a path or a size is wrong; the message names the field.
    """
    augmentation = _make_augmentation(config, config.augment.name, "config.augment.name")
    preprocess = _make_augmentation(config, "none", "config.data.resize_size")
    optimizer_ = optimizer.make_optimizer(config.optimizer, config.train.steps)
    schedule = optimizer.make_schedule(config.optimizer, config.train.steps)
    sources = {
        field: _load_source(config, split, field)
        for field, split in (
            ("config.data.train_split", config.data.train_split),
            ("config.data.validation_split", config.data.validation_split),
            ("config.eval.split", config.eval.split),
        )
    }
    train_source, validation_source, evaluation_source = sources.values()
    train_source = _training_share(config, train_source)
    if len(evaluation_source) < 2:
        raise UserError(
            f"config.eval.split is {config.eval.split!r}, which holds {len(evaluation_source)} "
            "images; expected at least 2, because the baseline compares different images"
        )
    model = _make_model(config, train_source.num_classes)
    mesh = _make_mesh(config)
    devices.check_divisible(
        f"config.train.batch_size{_of_a_microbatch(config)}", _microbatch(config), mesh
    )
    experiment = Experiment(
        config=config,
        mesh=mesh,
        model=model,
        augmentation=augment.with_policies(
            augmentation, config.augment.policies, "config.augment.policies"
        ),
        mixing=augment.one_mixing(config.augment.mixing, "config.augment.mixing"),
        preprocess=preprocess,
        test_time={
            text: _make_augmentation(config, text, f"config.eval.test_time[{position}]")
            for position, text in enumerate(config.eval.test_time)
        },
        generators=tuple(
            generators.get(text, f"config.eval.local_equivariance[{position}]")
            for position, text in enumerate(config.eval.local_equivariance)
        ),
        optimizer=optimizer_,
        schedule=schedule,
        loss=make_loss(config.train.loss, config.train.label_smoothing),
        train_source=train_source,
        validation_source=validation_source,
        evaluation_source=evaluation_source,
    )
    _check_model(experiment)
    return experiment


def _make_augmentation(config: ExperimentConfig, text: str, field: str) -> Augmentation:
    try:
        name, options = spec.parse(text)
        sizes = {"size": config.data.image_size, "resize": config.data.resize_size}
        return augment.get(name, **(sizes | options))
    except (UserError, TypeError) as error:
        raise UserError(f"{field}: {error}") from error


def _make_model(config: ExperimentConfig, num_classes: int) -> nn.Module:
    try:
        name, options = spec.parse(config.model.name)
        return models.create(
            name,
            num_classes,
            dtype=config.model.dtype,
            ghost_batch_size=config.model.ghost_batch_size,
            remat=config.model.remat,
            **options,
        )
    except (UserError, TypeError) as error:
        raise UserError(f"config.model.name: {error}") from error


def _make_mesh(config: ExperimentConfig) -> Mesh:
    if config.mesh.model > 1 and config.mesh.parameters != "tensor":
        raise UserError(
            f"config.mesh.model is {config.mesh.model}, but with config.mesh.parameters "
            f"{config.mesh.parameters!r} its devices would all do the same; expected 1, or 'tensor'"
        )
    return devices.make_mesh(config.mesh.data, config.mesh.model)


def _microbatch(config: ExperimentConfig) -> int:
    """Images that are computed at once; refuses a batch that cannot be divided."""
    batch, parts, group = (
        config.train.batch_size,
        config.train.grad_accum_steps,
        config.model.ghost_batch_size,
    )
    if batch % parts:
        raise UserError(
            f"config.train.grad_accum_steps is {parts}; expected a divisor of "
            f"config.train.batch_size, which is {batch}"
        )
    if group and (batch // parts) % group:
        raise UserError(
            f"config.model.ghost_batch_size is {group}; expected a divisor of {batch // parts}, "
            f"which is config.train.batch_size{_of_a_microbatch(config)}"
        )
    return batch // parts


def _of_a_microbatch(config: ExperimentConfig) -> str:
    return "" if config.train.grad_accum_steps == 1 else " / config.train.grad_accum_steps"


def _check_model(experiment: Experiment) -> None:
    """Traces the model's shapes: sizes that do not fit are found without computing."""
    try:
        experiment.abstract_state()
    except UserError as error:
        config = experiment.config
        raise UserError(
            f"config.model.name {config.model.name!r} with config.data.image_size "
            f"{config.data.image_size}: {error}"
        ) from error


def _load_source(config: ExperimentConfig, split: str, field: str) -> data.Source:
    try:
        source = data.load_source(
            config.data.name,
            split,
            data_dir=config.data.data_dir,
            label_feature=config.data.label_feature,
        )
    except data.SplitError as error:
        raise UserError(f"{field}: {error}") from error
    if not config.data.classes:
        return source
    try:
        return data.of_classes(source, config.data.classes)
    except UserError as error:
        raise UserError(f"config.data.classes with {field} {split!r}: {error}") from error


def _training_share(config: ExperimentConfig, source: data.Source) -> data.Source:
    """What is trained on; a measurement is of whole splits."""
    if config.data.fraction == 1:
        return source
    try:
        return data.share_of_each_class(source, config.data.fraction, config.data.subset_seed)
    except UserError as error:
        raise UserError(f"config.data.{error}") from error
