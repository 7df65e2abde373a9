"""From a checked config to the things it names, before any training."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from invariance_jax import augment, data, devices, models, spec
from invariance_jax.augment import Augmentation
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError, unknown_name
from invariance_jax.evaluation.measurement import augmentation_of, preprocessing
from invariance_jax.evaluation.table import make_measurements
from invariance_jax.factors import per_class
from invariance_jax.training import optimizer, sharding
from invariance_jax.training.losses import Loss, make_loss
from invariance_jax.training.state import TrainState, init_state


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """What a config names. Data is opened when it is first asked for.

    Attributes:
        config: The config.
        mesh: The devices.
        augmentation: What happens to each training image, whatever its class.
        per_class: How operations are chosen for each class; None for no such operations.
        mixing: What happens to batches of them.
        learned: What happens to normalised images, with widths that are learned; None for nothing.
        preprocess: What happens to images otherwise: `none`, as in the paper.
        optimizer: The optimizer.
        schedule: Its learning rate.
        loss: What the optimizer makes small.
        num_classes: Of the training images; None to ask them.
        like: A run with the same images, network and kind of optimizer, whose are taken.
    """

    config: ExperimentConfig
    mesh: Mesh
    augmentation: augment.WithPolicies
    per_class: per_class.PerClassRows | None
    mixing: augment.OneMixing
    learned: augment.LearnedAugmentation | None
    preprocess: Augmentation
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    loss: Loss
    num_classes: int | None = None
    like: "Experiment | None" = None

    @functools.cached_property
    def train_source(self) -> data.Source:
        """Training images, the share of them that the config wants."""
        if self.like:
            return self.like.train_source
        config = self.config.data
        source = data.from_config(config, config.train_split, "data.train_split")
        if config.fraction == 1:
            return source
        try:
            return data.share_of_each_class(source, config.fraction, config.subset_seed)
        except UserError as error:
            raise UserError(f"config.data.{error}") from error

    @functools.cached_property
    def validation_source(self) -> data.Source:
        """Images for accuracy."""
        if self.like:
            return self.like.validation_source
        config = self.config.data
        return data.from_config(config, config.validation_split, "data.validation_split")

    @functools.cached_property
    def rows_by_class(self) -> per_class.ByClass:
        """What images get because of their class; a search's result file is read."""
        if self.per_class is None:
            return {}
        source, some = self.train_source, bool(self.config.data.classes)
        trained = np.unique(source.labels()).tolist() if some else None
        try:
            return self.per_class.choose(source.class_names, trained)
        except UserError as error:
            raise UserError(f"config.augment.per_class: {error}") from error

    @functools.cached_property
    def whole_augmentation(self) -> augment.WithPolicies | augment.PerClass:
        """What happens to each training image, the operations of its class included."""
        if self.per_class is None:
            return self.augmentation
        square = None
        if self.per_class.when == "before":
            side = min(self.config.data.resize_size, self.config.data.canvas_size)
            square = augment.get("none", size=side, resize=side)
        return per_class.operation_of(
            self.rows_by_class,
            self.train_source.num_classes,
            augmentation=self.augmentation,
            square=square,
        )

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network, with a class for each of the training images'."""
        return _make_model(self.config, self.num_classes or self.train_source.num_classes)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state; nothing is computed, no parameter read."""
        if self.like:
            return self.like.abstract_state
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

    def as_model(self, variables: Any) -> models.Model:
        """The network as the evaluator sees it.

        Args:
            variables: Its parameters and running statistics, or their shapes.

        Returns:
            The model.
        """
        return models.from_flax(
            self.model,
            variables,
            name=self.config.model.name,
            preprocessing=models.Preprocessing.of_config(self.config.data),
        )

    def check(self) -> None:
        """Opens what training reads and traces its shapes, so that mistakes are found before it.

        Raises:
            UserError: A data set or a split is not there, or `config.mesh` does not fit the model,
                or the model not the images, or what is to be measured later is not there, or no
                class has a row of `config.augment.per_class`.
        """
        _ = self.train_source, self.validation_source, self.abstract_state, self.rows_by_class
        make_measurements(self.config)
        if wanted := self.config.eval.features:
            size = self.config.data.image_size
            images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
            apply = functools.partial(self.model.apply, train=False)
            _, known = jax.eval_shape(apply, self.abstract_state.variables, images)
            for name in wanted:
                if name not in known:
                    error = unknown_name("feature", name, known)
                    raise UserError(f"config.eval.features: {error}")

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
        try:
            return models.load_model(
                config.name,
                config.weights,
                image_size=self.config.data.image_size,
                num_classes=self.model.num_classes,
                which_weights=config.which_weights,
                resample_pos_embed=config.resample_pos_embed,
            ).variables
        except UserError as error:
            raise UserError(f"config.model.weights: {error}") from error

    def _state_of(
        self, variables: dict[str, Any] | None, abstract: TrainState | None
    ) -> TrainState:
        return init_state(
            self.model,
            self.optimizer,
            jax.random.key(self.config.seed),
            self.config.data.image_size,
            variables=variables,
            augmentation=self.learned and self.learned.initial(self.model.num_classes),
            ema=self.config.train.ema_decay > 0,
            shardings=abstract and jax.tree.map(lambda x: x.sharding, abstract),
        )


def make(
    config: ExperimentConfig,
    *,
    available: Sequence[jax.Device] | None = None,
    num_classes: int | None = None,
    runs: int = 0,
    like: Experiment | None = None,
) -> Experiment:
    """Builds everything that a config names but its data, and checks that it fits together.

    Args:
        config: A checked config.
        available: The devices; those at hand by default.
        num_classes: Of the training images; by default they are opened and asked.
        runs: How many runs share the devices and one program; 0 for a run alone.
        like: Another of these runs, whose mesh, images and shapes are taken.

    Returns:
        The experiment. No data has been opened, and nothing computed on a device.

    Raises:
        UserError: A name, an option or a size is wrong; the message names the field.
    """
    _make_model(config, models.DEFAULT_CLASSES)
    if config.mesh.model > 1 and config.mesh.parameters != "tensor":
        raise UserError(
            f"config.mesh.model is {config.mesh.model}, but with config.mesh.parameters "
            f"{config.mesh.parameters!r} its devices would all do the same; expected 1, or 'tensor'"
        )
    if like:
        mesh = like.mesh
    elif runs:
        mesh = devices.make_mesh_of_runs(runs, config.mesh.run, config.mesh.data, available)
    else:
        mesh = devices.make_mesh(config.mesh.data, config.mesh.model, available)
    _check_batch(config, mesh)
    learned = augment.parse_learned(config.augment.learned, "config.augment.learned")
    if learned:
        _check_learned(config, learned)
    rows = per_class.parse(config.augment.per_class, "config.augment.per_class")
    name = "none" if rows and rows.when == "instead" else config.augment.name
    return Experiment(
        config=config,
        mesh=mesh,
        augmentation=augment.with_policies(
            dataclasses.replace(augmentation_of(config, name, "config.augment.name"), exact=False),
            config.augment.policies,
            "config.augment.policies",
        ),
        per_class=rows,
        mixing=augment.one_mixing(config.augment.mixing, "config.augment.mixing"),
        learned=learned,
        preprocess=preprocessing(config),
        optimizer=optimizer.make_optimizer(config.optimizer, config.train.steps, learned),
        schedule=optimizer.make_schedule(config.optimizer, config.train.steps),
        loss=make_loss(config.train.loss, config.train.label_smoothing),
        num_classes=num_classes,
        like=like,
    )


def _make_model(config: ExperimentConfig, num_classes: int) -> nn.Module:
    try:
        if models.is_foreign(config.model.name):
            raise UserError(
                f"{config.model.name!r} runs on the host and can be measured, not trained; "
                f"expected one of: {', '.join(models.names())}"
            )
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


def _check_learned(config: ExperimentConfig, learned: augment.LearnedAugmentation) -> None:
    if config.train.loss != "cross_entropy":
        raise UserError(
            f"config.train.loss is {config.train.loss!r}; expected 'cross_entropy' with "
            "config.augment.learned, which averages the logarithms of probabilities"
        )
    if learned.per_class and config.augment.mixing:
        raise UserError(
            f"config.augment.mixing is {config.augment.mixing}; expected none with widths for each "
            "class in config.augment.learned, because a mixed image has two"
        )


def _check_batch(config: ExperimentConfig, mesh: Mesh) -> None:
    """Refuses a batch that cannot be divided."""
    batch, parts = config.train.batch_size, config.train.grad_accum_steps
    ghost = config.model.ghost_batch_size
    if batch % parts:
        raise UserError(
            f"config.train.grad_accum_steps is {parts}; expected a divisor of "
            f"config.train.batch_size, which is {batch}"
        )
    at_once = batch // parts
    name = f"config.train.batch_size{' / config.train.grad_accum_steps' if parts > 1 else ''}"
    if ghost and at_once % ghost:
        raise UserError(
            f"config.model.ghost_batch_size is {ghost}; expected a divisor of {at_once}, which is "
            f"{name}"
        )
    devices.check_divisible(name, at_once, mesh)
