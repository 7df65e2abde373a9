"""From a checked config to the things it names, before any training."""

import dataclasses

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from invariance_jax import augment, data, devices, models, spec
from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.training import optimizer, sharding
from invariance_jax.training.state import TrainState, init_state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a config names.

    Attributes:
        config: The config.
        mesh: The devices.
        model: The network.
        augmentation: What happens to training images.
        preprocess: What happens to images otherwise: `none`, as in the paper.
        optimizer: The optimizer.
        schedule: Its learning rate.
        train_source: Training images.
        validation_source: Images for accuracy.
        evaluation_source: Images for invariance.
    """

    config: ExperimentConfig
    mesh: Mesh
    model: nn.Module
    augmentation: Augmentation
    preprocess: Augmentation
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    train_source: data.Source
    validation_source: data.Source
    evaluation_source: data.Source

    def init_state(self) -> TrainState:
        """The state before the first step, laid out as `config.mesh` says."""
        return self._state_of(self.state_shardings())

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state; nothing is computed."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            self._shapes(),
            self.state_shardings(),
        )

    def state_shardings(self) -> TrainState:
        """Where each array of the state lies.

        Returns:
            A tree like the state, with a sharding for every array.

        Raises:
            UserError: `config.mesh` does not fit the model.
        """
        return sharding.state_shardings(
            self._shapes(), self.mesh, self.config.mesh.parameters
        )

    def _shapes(self) -> TrainState:
        return jax.eval_shape(lambda: self._state_of(None))

    def _state_of(self, shardings: TrainState | None) -> TrainState:
        return init_state(
            self.model,
            self.optimizer,
            jax.random.key(self.config.seed),
            self.config.data.image_size,
            ema=self.config.train.ema > 0,
            shardings=shardings,
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
    if len(evaluation_source) < 2:
        raise UserError(
            f"config.eval.split is {config.eval.split!r}, which holds {len(evaluation_source)} "
            "images; expected at least 2, because the baseline compares different images"
        )
    model = _make_model(config, train_source.num_classes)
    mesh = _make_mesh(config)
    _check_accumulate(config)
    for field, size in (
        (
            "config.train.batch_size / config.train.accumulate",
            config.train.batch_size // config.train.accumulate,
        ),
        ("config.eval.batch_size", config.eval.batch_size),
        ("config.eval.grid_batch_size", config.eval.grid_batch_size),
    ):
        devices.check_divisible(field, size, mesh)
    experiment = Experiment(
        config=config,
        mesh=mesh,
        model=model,
        augmentation=augmentation,
        preprocess=preprocess,
        optimizer=optimizer_,
        schedule=schedule,
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
            bn_group=config.model.bn_group,
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


def _check_accumulate(config: ExperimentConfig) -> None:
    batch, parts = config.train.batch_size, config.train.accumulate
    if batch % parts:
        raise UserError(
            f"config.train.accumulate is {parts}; expected a divisor of config.train.batch_size, "
            f"which is {batch}"
        )
    if config.model.bn_group and (batch // parts) % config.model.bn_group:
        raise UserError(
            f"config.model.bn_group is {config.model.bn_group}; expected a divisor of a "
            f"microbatch of {batch // parts} images (config.train.batch_size / "
            "config.train.accumulate)"
        )


def _check_model(experiment: Experiment) -> None:
    """Traces the model's shapes: sizes that do not fit are found without computing."""
    experiment.make_loss()
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
        return data.load_source(config.data.name, split, data_dir=config.data.data_dir)
    except data.SplitError as error:
        raise UserError(f"{field}: {error}") from error
