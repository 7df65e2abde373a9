"""From a checked config to the things it names, before any training."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from invariance_jax import augment, data, devices, models, spec
from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.models.model import check_shapes
from invariance_jax.training import optimizer, sharding
from invariance_jax.training.losses import Loss, make_loss
from invariance_jax.training.state import TrainState, init_state
from invariance_jax.transforms import generators
from invariance_jax.transforms.generators import Generator


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """What a config names. Data is opened when it is first asked for.

    Attributes:
        config: The config.
        mesh: The devices.
        augmentation: What happens to each training image.
        mixing: What happens to batches of them.
        preprocess: What happens to images otherwise: `none`, as in the paper.
        test_time: Further ways to crop test images, by name.
        generators: What the local equivariance error is measured along.
        optimizer: The optimizer.
        schedule: Its learning rate.
        loss: What the optimizer makes small.
    """

    config: ExperimentConfig
    mesh: Mesh
    augmentation: augment.WithPolicies
    mixing: augment.OneMixing
    preprocess: Augmentation
    test_time: Mapping[str, Augmentation]
    generators: tuple[Generator, ...]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    loss: Loss

    @functools.cached_property
    def train_source(self) -> data.Source:
        """Training images, the share of them that the config wants."""
        config = self.config.data
        source = _open(self.config, config.train_split, "config.data.train_split")
        if config.fraction == 1:
            return source
        try:
            return data.share_of_each_class(source, config.fraction, config.subset_seed)
        except UserError as error:
            raise UserError(f"config.data.{error}") from error

    @functools.cached_property
    def validation_source(self) -> data.Source:
        """Images for accuracy."""
        return _open(self.config, self.config.data.validation_split, "config.data.validation_split")

    @functools.cached_property
    def evaluation_source(self) -> data.Source:
        """Images for invariance."""
        source = _open(self.config, self.config.eval.split, "config.eval.split")
        if len(source) < 2:
            raise UserError(
                f"config.eval.split is {self.config.eval.split!r}, which holds {len(source)} "
                "images; expected at least 2, because the baseline compares different images"
            )
        return source

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network, with a class for each of the training images'."""
        return _make_model(self.config, self.train_source.num_classes)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state; nothing is computed, no parameter read."""
        config = self.config
        try:
            # Once: to trace a large network takes seconds.
            shapes = jax.eval_shape(lambda: self._state_of(None, None))
            return sharding.lay_out(shapes, self.mesh, config.mesh.parameters)
        except UserError as error:
            raise UserError(
                f"config.model.name {config.model.name!r} with config.data.image_size "
                f"{config.data.image_size}: {error}"
            ) from error

    @property
    def validation_batch_size(self) -> int:
        """Images of one batch of the validation, over all devices."""
        each = self.config.eval.per_device_batch_size or 32
        return each * self.mesh.shape[devices.DATA_AXIS]

    def check(self) -> None:
        """Opens what training reads and traces its shapes, so that mistakes are found before it.

        Raises:
            UserError: A data set or a split is not there, or `config.mesh` does not fit the model,
                or the model not the images.
        """
        _ = self.train_source, self.validation_source, self.abstract_state

    def init_state(self) -> TrainState:
        """The state before the first step, laid out as `config.mesh` says.

        Returns:
            The state, of parameters drawn from the seed or read from `config.model.weights`.

        Raises:
            UserError: The file of weights cannot be read or does not fit.
        """
        return self._state_of(self.load_weights(), self.abstract_state)

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
        with _named("config.model.weights"):
            name, options = spec.parse(config.name)
            arrays = models.load_weights(pathlib.Path(config.weights).expanduser())
            variables = models.import_weights(
                name, arrays, num_classes=self.model.num_classes, **options
            )
        check_shapes(
            variables,
            self.abstract_state.variables,
            f"config.model.weights {config.weights!r}",
            f"config.data.image_size {self.config.data.image_size}",
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
    """Builds everything that a config names but its data, and checks that it fits together.

    Args:
        config: A checked config.

    Returns:
        The experiment. No data has been opened, and nothing computed on a device.

    Raises:
        UserError: A name, an option or a size is wrong; the message names the field.
    """
    _make_model(config, models.DEFAULT_CLASSES)
    mesh = _make_mesh(config)
    where = "" if config.train.grad_accum_steps == 1 else " / config.train.grad_accum_steps"
    devices.check_divisible(f"config.train.batch_size{where}", _microbatch(config, where), mesh)
    return Experiment(
        config=config,
        mesh=mesh,
        augmentation=augment.with_policies(
            _make_augmentation(config, config.augment.name, "config.augment.name"),
            config.augment.policies,
            "config.augment.policies",
        ),
        mixing=augment.one_mixing(config.augment.mixing, "config.augment.mixing"),
        preprocess=_make_augmentation(config, "none", "config.data.resize_size"),
        test_time={
            text: _make_augmentation(config, text, f"config.eval.test_time[{position}]")
            for position, text in enumerate(config.eval.test_time)
        },
        generators=tuple(
            generators.get(text, f"config.eval.local_equivariance[{position}]")
            for position, text in enumerate(config.eval.local_equivariance)
        ),
        optimizer=optimizer.make_optimizer(config.optimizer, config.train.steps),
        schedule=optimizer.make_schedule(config.optimizer, config.train.steps),
        loss=make_loss(config.train.loss, config.train.label_smoothing),
    )


@contextlib.contextmanager
def _named(field: str) -> Iterator[None]:
    """Says which field a mistake is about; an option that does not exist is a TypeError."""
    try:
        yield
    except (UserError, TypeError) as error:
        raise UserError(f"{field}: {error}") from error


def _make_augmentation(config: ExperimentConfig, text: str, field: str) -> Augmentation:
    with _named(field):
        name, options = spec.parse(text)
        sizes = {"size": config.data.image_size, "resize": config.data.resize_size}
        return augment.get(name, **(sizes | options))


def _make_model(config: ExperimentConfig, num_classes: int) -> nn.Module:
    with _named("config.model.name"):
        name, options = spec.parse(config.model.name)
        return models.create(
            name,
            num_classes,
            dtype=config.model.dtype,
            ghost_batch_size=config.model.ghost_batch_size,
            remat=config.model.remat,
            **options,
        )


def _make_mesh(config: ExperimentConfig) -> Mesh:
    if config.mesh.model > 1 and config.mesh.parameters != "tensor":
        raise UserError(
            f"config.mesh.model is {config.mesh.model}, but with config.mesh.parameters "
            f"{config.mesh.parameters!r} its devices would all do the same; expected 1, or 'tensor'"
        )
    return devices.make_mesh(config.mesh.data, config.mesh.model)


def _microbatch(config: ExperimentConfig, where: str) -> int:
    """Images that are computed at once; refuses a batch that cannot be divided."""
    batch, parts = config.train.batch_size, config.train.grad_accum_steps
    ghost = config.model.ghost_batch_size
    if batch % parts:
        raise UserError(
            f"config.train.grad_accum_steps is {parts}; expected a divisor of "
            f"config.train.batch_size, which is {batch}"
        )
    if ghost and (batch // parts) % ghost:
        raise UserError(
            f"config.model.ghost_batch_size is {ghost}; expected a divisor of {batch // parts}, "
            f"which is config.train.batch_size{where}"
        )
    return batch // parts


def _open(config: ExperimentConfig, split: str, field: str) -> data.Source:
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
    with _named(f"config.data.classes with {field} {split!r}"):
        return data.of_classes(source, config.data.classes)
