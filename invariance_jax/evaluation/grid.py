"""Relative invariance over the grid of transforms and magnitudes (paper, section 3).

z, the features of an image as it is, comes from the driver's forward pass. Then a `scan` over the
grid points (transform, magnitude) holds a `switch` over the transforms' functions, each mapped over
the batch, and the forward pass: so the network is compiled once for the whole grid, and what
depends on the magnitude alone is computed once and shared by the batch. Only distances leave the
device.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Shaped

from invariance_jax import progress
from invariance_jax.augment import Augmentation, translate_in_context
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError, unknown_name
from invariance_jax.evaluation import metrics, results, walk
from invariance_jax.evaluation.measurement import (
    MAIN,
    Images,
    Matrix,
    Measurement,
    Network,
    Seen,
    in_passes,
    preprocessing,
    refuse_not_finite,
    to_bytes,
)
from invariance_jax.transforms import (
    REFERENCE_SIZE,
    TRANSFORMS,
    Domain,
    PaddingMode,
    Transform,
    in_domain,
)

Pooling = Literal["mean", "none"]
EMBEDDING = "embedding"
# NetCDF groups of the result file.
FEATURES_GROUP, CLASSES_GROUP = "features", "classes"
_DIMENSIONS = ("transform", "magnitude", "image")
# Normalised pixels that differ by less are equal: one grey level is more than 0.003.
_UNCHANGED = 1e-5
# Rows whose alignment is computed at once.
_ROWS = 4096
# The rows that `padding_mode` concerns, and which way they go (down, right).
_TRANSLATIONS = {"translate_x": (0.0, 1.0), "translate_y": (1.0, 0.0)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Invariance(Measurement):
    """Distances between images and their transforms, and between images and others' transforms.

    Attributes:
        transforms: The table; every transform has as many magnitudes.
        preprocess: Canvas to image, `none`; "context" moves its crop.
        domain: Whether the transforms act on "pixel" or, as in the paper's code, on "normalized"
            values.
        padding_mode: What translations show where the image has left: "constant" is black (in the
            domain "normalized", ImageNet's mean colour), as in the paper; "wrap" its other side;
            "context" what stood beside the crop, and black only beyond the image's own border
            (it moves the crop over the canvas, so that it is the same in both domains).
        features: What is compared beside the embedding.
        pooling: How feature maps become vectors: "mean" over pixels or tokens, which forgets where
            things are; "none" keeps every position: then a moved object is a change.
        equivariance: Whether equivariance alignment is measured too.
        seed: Of the permutation behind the baseline.
        per_class: Whether percentiles over the images of each class are added.
        show_progress: Whether a bar is shown while equivariance is put together.
    """

    transforms: Mapping[str, Transform] = dataclasses.field(default_factory=lambda: TRANSFORMS)
    preprocess: Augmentation
    domain: Domain = "pixel"
    padding_mode: PaddingMode = "constant"
    features: Sequence[str] = ()
    pooling: Pooling = "mean"
    equivariance: bool = False
    seed: int = 0
    per_class: bool = False
    show_progress: bool = True

    name = "invariance"
    least_images = 2

    @classmethod
    def from_config(cls, config: ExperimentConfig) -> Self:
        """The fields of `config.eval`."""
        chosen = config.eval
        return cls(
            preprocess=preprocessing(config),
            domain=chosen.domain,
            padding_mode=chosen.padding_mode,
            features=chosen.features,
            pooling=chosen.pooling,
            equivariance=chosen.equivariance,
            seed=chosen.seed,
            per_class=chosen.per_class,
        )

    def identity(self) -> dict[str, Any]:
        """The grid."""
        return {"grid": {name: list(each.magnitudes) for name, each in self.transforms.items()}}

    def __post_init__(self) -> None:
        if self.equivariance and self.pooling == "none" and len(self.names) > 1:
            raise UserError(
                "config.eval.equivariance keeps differences of all features at all grid points, "
                "too many with config.eval.pooling 'none'; expected 'mean', or no "
                "config.eval.features"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The features that are compared, the embedding first."""
        return tuple(dict.fromkeys((EMBEDDING, *self.features)))

    @property
    def matrices(self) -> frozenset[str]:
        """Differences wait on disk until all images have theirs."""
        return frozenset(map(_difference, self.names)) if self.equivariance else frozenset()

    @property
    def computed(self) -> Bool[np.ndarray, "transform magnitude"]:
        """The grid points that need a forward pass: not those that change no image.

        On normalised values even an identity may clip, so every point counts there.
        """
        return np.array(
            [
                [
                    self.domain != "pixel" or magnitude != each.identity
                    for magnitude in each.magnitudes
                ]
                for each in self.transforms.values()
            ]
        )

    def permutation(self, images: int) -> Int[np.ndarray, " image"]:
        """pi, over the whole evaluated set; see `walk.pairing`."""
        return walk.pairing(images, self.seed)

    def carry(self, seen: Seen) -> list[Float[Array, "batch length"]]:
        """Z of every feature: the next image's transforms are this one's baseline."""
        return self._vectors(seen.features)

    def _vectors(self, features: Mapping[str, Array]) -> list[Float[Array, "batch length"]]:
        found = []
        for name in self.names:
            if name not in features:
                error = unknown_name("feature", name, features)
                raise UserError(f"config.eval.features: {error}")
            found.append(pool(features[name], self.pooling).astype(jnp.float32))
        return found

    def step(
        self, network: Network, seen: Seen, previous: list[Float[Array, "batch _"]]
    ) -> dict[str, Array | list[Array]]:
        """Measures one device's images at every computed grid point.

        Args:
            network: The network.
            seen: The images.
            previous: z of the images whose baseline uses these.

        Returns:
            "transformed" and "baseline", float32 [batch, point, feature, distance];
            "baseline_unchanged", the baseline where the transform changes nothing, [batch, feature,
            distance]; "finite", whether z is; of classifiers "flip" and "correct", bool [batch,
            point], "prediction", int32, and "correct_unchanged", bool [batch]; with equivariance
            "difference_FEATURE", z - z_t, float32 [batch, point, length].
        """
        z, batch = self._vectors(seen.features), seen.image.shape[0]
        points = _points(self.computed, self.transforms)
        chosen = in_passes(points, batch, network.largest_pass)
        # A TPU writes in each branch what the network takes and nothing else, with channels first:
        # three of them are padded to eight or more elsewhere. A CPU does it better for all at once.
        on_tpu = network.platform == "tpu"
        channels = 0 if on_tpu else 2

        def taken(shown: Array, as_it_is: Array) -> tuple[Array, Array]:
            # A transform may leave an image as it is, as solarize does one without bright pixels.
            difference = jnp.abs(shown - as_it_is)
            inputs = jnp.moveaxis(shown.astype(network.dtype), 2, channels)
            return inputs, jnp.max(difference) > _UNCHANGED

        def branch(transform: Transform) -> Callable[[Seen, Array], Any]:
            show = self.show(transform, network.normalize)

            def one(seen: Seen, magnitude: Array) -> Any:
                shown = show(seen, magnitude)
                return taken(shown, network.normalize(seen.image)) if on_tpu else shown

            # The magnitude is not mapped over: what depends on it alone (weights, indices) is
            # computed once and shared by the batch.
            return jax.vmap(one, (0, None))

        branches = [branch(each) for each in self.transforms.values()]
        as_they_are = network.normalize(seen.image)
        plain = {}
        if seen.logits is not None:
            plain["prediction"] = jnp.argmax(seen.logits, axis=-1).astype(jnp.int32)
            plain["correct_unchanged"] = metrics.is_correct(seen.logits, seen.label)

        def show_point(point: tuple[Array, Array]) -> Any:
            index, magnitude = point
            return jax.lax.switch(index, branches, seen, magnitude)

        def one_pass(_: None, points_of_pass: tuple[Array, Array]) -> tuple[None, dict[str, Array]]:
            shown = jax.lax.map(show_point, points_of_pass)
            if not on_tpu:
                shown = jax.vmap(jax.vmap(taken), (0, None))(shown, as_they_are)
            shown, changed = shown
            # What has not changed has its own features: computed again, they would be rounded
            # otherwise, and a difference of rounding errors has a direction that means nothing.
            shown = jnp.moveaxis(shown, 2 + channels, 4)
            logits, features = network.apply(shown.reshape(-1, *shown.shape[2:]))
            z_transformed = [
                jnp.where(changed[..., None], each.reshape(-1, *own.shape), own[None])
                for each, own in zip(self._vectors(features), z, strict=True)
            ]
            found = {
                "transformed": _distances([each[None] for each in z], z_transformed),
                "baseline": _distances([each[None] for each in previous], z_transformed),
            }
            if logits is not None:
                logits = logits.reshape(*changed.shape, -1)
                label = jnp.broadcast_to(seen.label, logits.shape[:2])
                flip = metrics.prediction_flip(plain["prediction"][None], logits)
                found["flip"] = changed & flip
                found["correct"] = jnp.where(
                    changed, metrics.is_correct(logits, label), plain["correct_unchanged"][None]
                )
            if self.equivariance:
                for name, own, each in zip(self.names, z, z_transformed, strict=True):
                    found[_difference(name)] = own[None] - each
            return None, found

        # The scan compiles the network once for all points.
        _, found = jax.lax.scan(one_pass, None, chosen)
        flat = {
            name: jnp.moveaxis(x.reshape(-1, *x.shape[2:])[: len(points[0])], 1, 0)
            for name, x in found.items()
        }
        finite = jnp.stack([jnp.isfinite(each).all(axis=1) for each in z]).all(axis=0)
        return flat | plain | {"baseline_unchanged": _distances(previous, z), "finite": finite}

    def show(
        self, transform: Transform, normalize: Callable[[Array], Array]
    ) -> Callable[[Seen, Float[Array, ""]], Float[Array, "size size 3"]]:
        """Makes the function from one image and a magnitude to what the network takes.

        Args:
            transform: A row of the table.
            normalize: From images in [0, 1] to normalised ones.

        Returns:
            `shown(seen, magnitude)`, of one image; it is normalised.

        Raises:
            UserError: No such domain or padding mode.
        """
        if self.padding_mode not in get_args(PaddingMode):
            raise unknown_name("padding mode", self.padding_mode, get_args(PaddingMode))
        if transform.name in _TRANSLATIONS and self.padding_mode == "context":
            down, right = _TRANSLATIONS[transform.name]

            def in_context(seen: Seen, magnitude: Float[Array, ""]) -> Array:
                pixels = magnitude * self.preprocess.size / REFERENCE_SIZE
                moved = translate_in_context(
                    self.preprocess,
                    *(seen.canvas, seen.height, seen.width),
                    down=down * pixels,
                    right=right * pixels,
                )
                # The moved crop is preprocessed as the crop in place is.
                return normalize(to_bytes(moved))

            return in_context
        if transform.name in _TRANSLATIONS:
            moved = functools.partial(transform.function, padding_mode=self.padding_mode)
            transform = dataclasses.replace(transform, function=moved)
        shown = in_domain(transform, self.domain, normalize)
        return lambda seen, magnitude: shown(seen.image, magnitude)

    def check(self, found: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        """Refuses what is not a number; names the image, and the grid point where that is why."""
        refuse_not_finite("the features", np.where(found["finite"], 0, np.nan), names)
        bad = ~np.isfinite(found["transformed"]).all(axis=(2, 3))
        if bad.any():
            point = np.argwhere(bad.T)[0][0]
            index, magnitude = (each[point] for each in _points(self.computed, self.transforms))
            transform = list(self.transforms.values())[index]
            what = f"{transform.name} {magnitude:g} {transform.unit}: the features"
            refuse_not_finite(what, np.where(bad[:, point], np.nan, 0), names)

    def datasets(self, found: Mapping[str, Any], images: Images) -> dict[str, xr.Dataset]:
        """Labels what was found.

        Args:
            found: The arrays of `step` over all images.
            images: The images.

        Returns:
            Dims (transform, magnitude, image): float32 `transformed_D`, `baseline_D` and
            `relative_invariance_D` for D in "cosine", "euclidean"; bool `flip` and, with labels,
            `correct`, of classifiers; float32 `equivariance_alignment` if it was asked for.
            Coordinates of the image: its label, the class predicted without a transform, and the
            permutation behind the baseline. The same float32 variables of every feature, the
            embedding first, in the group "features"; percentiles by class in the group "classes".
        """
        permutation = self.permutation(len(images.names))
        by_feature = self._by_feature(found, permutation)
        variables = {name: (_DIMENSIONS, value) for name, value in by_feature[0].items()}
        coordinates = {**self._grid_coordinates(), **images.coordinates()}
        if "flip" in found:
            nothing = np.zeros(len(permutation), bool)
            variables["flip"] = (_DIMENSIONS, self._on_grid(found["flip"], nothing))
            coordinates["prediction"] = ("image", found["prediction"])
            if images.labels is not None:
                correct = self._on_grid(found["correct"], found["correct_unchanged"])
                variables["correct"] = (_DIMENSIONS, correct)
        coordinates["permutation"] = ("image", permutation.astype(np.int32))
        attributes = {"domain": self.domain, "padding_mode": self.padding_mode}
        main = xr.Dataset(variables, coordinates, attributes)
        groups = {MAIN: main}
        if self.features:
            groups[FEATURES_GROUP] = xr.Dataset(
                {
                    name: (("feature", *_DIMENSIONS), np.stack([each[name] for each in by_feature]))
                    for name in by_feature[0]
                },
                {
                    "feature": list(self.names),
                    **self._grid_coordinates(),
                    "image": list(images.names),
                },
            )
        return groups | self.derived_groups(main, images.class_names)

    def derived_groups(self, main: xr.Dataset, class_names: Sequence[str]) -> dict[str, xr.Dataset]:
        """Groups that can be added to a finished file.

        Args:
            main: The main dataset.
            class_names: Names of all classes, in the order of the labels.

        Returns:
            Percentiles by class, if they were asked for and there are labels.
        """
        if not self.per_class or "label" not in main.coords:
            return {}
        return {CLASSES_GROUP: results.percentiles_by_class(main, class_names)}

    def _by_feature(
        self, found: Mapping[str, Any], permutation: Int[np.ndarray, " image"]
    ) -> list[dict[str, Float32[np.ndarray, "transform magnitude image"]]]:
        """The variables of each feature; every baseline at the image that it belongs to."""
        by_feature = []
        for f in range(len(self.names)):
            variables = {}
            for k, kind in enumerate(metrics.DISTANCES):
                unchanged = found["baseline_unchanged"][permutation, f, k]
                baseline = self._on_grid(found["baseline"][permutation, :, f, k], unchanged)
                transformed = self._on_grid(
                    found["transformed"][:, :, f, k], np.zeros_like(unchanged)
                )
                invariance = np.asarray(metrics.relative_invariance(baseline, transformed))
                variables[f"relative_invariance_{kind}"] = invariance
                variables[f"transformed_{kind}"] = transformed
                variables[f"baseline_{kind}"] = baseline
            if self.equivariance:
                aligned = self._alignment(found[_difference(self.names[f])], permutation)
                nothing = np.zeros(len(permutation), np.float32)
                variables["equivariance_alignment"] = self._on_grid(aligned, nothing)
            by_feature.append(variables)
        return by_feature

    def _on_grid(
        self, values: np.ndarray, unchanged: np.ndarray
    ) -> Shaped[np.ndarray, "transform magnitude image"]:
        """Lays values [image, computed point] out over the whole grid."""
        computed = self.computed
        grid = np.empty((*computed.shape, len(values)), values.dtype)
        grid[computed] = values.T
        grid[~computed] = unchanged
        return grid

    def _grid_coordinates(self) -> dict[str, Any]:
        table = list(self.transforms.values())
        return {
            "transform": [each.name for each in table],
            "magnitude": np.arange(len(table[0].magnitudes), dtype=np.int32),
            "magnitude_value": (_DIMENSIONS[:2], np.array([each.magnitudes for each in table])),
            "unit": ("transform", [each.unit for each in table]),
            "family": ("transform", [each.family for each in table]),
        }

    def _alignment(
        self, difference: Matrix, permutation: Int[np.ndarray, " image"]
    ) -> Float32[np.ndarray, "image point"]:
        """Equivariance alignment; one grid point's differences are in memory at a time."""
        points = range(int(self.computed.sum()))
        with progress.bar(
            total=len(points),
            description="equivariance",
            unit="points",
            shown=self.show_progress,
        ) as bar:
            found = []
            for point in points:
                found.append(alignment(difference.row(point), permutation, self.seed))
                bar.update()
        return np.stack(found, axis=1)

    def summary(self, dataset: xr.Dataset) -> str:
        """Median relative invariance (cosine) by transform at some magnitudes; means of shares."""
        return results.summary(dataset)


def _difference(feature: str) -> str:
    return f"difference_{feature}"


def _points(
    computed: Bool[np.ndarray, "transform magnitude"], transforms: Mapping[str, Transform]
) -> tuple[Int32[np.ndarray, " point"], Float32[np.ndarray, " point"]]:
    """Position of the transform in the table, and magnitude, of each point that is computed."""
    magnitudes = np.array([each.magnitudes for each in transforms.values()], np.float32)
    return np.nonzero(computed)[0].astype(np.int32), magnitudes[computed]


def pool(
    feature: Float[Array, "batch *positions channels"], pooling: Pooling
) -> Float[Array, "batch length"]:
    """Turns a feature map, or tokens, into one vector an image.

    Args:
        feature: [batch, height, width, channels], [batch, tokens, channels] or [batch, channels].
        pooling: "mean" over pixels or tokens, or "none" to keep every position.

    Returns:
        [batch, length]; a vector stays as it is.
    """
    if pooling == "mean":
        return jnp.mean(feature, axis=tuple(range(1, feature.ndim - 1)))
    return feature.reshape(feature.shape[0], -1)


def _distances(
    a: Sequence[Float[Array, "*#point batch _"]],
    b: Sequence[Float[Array, "*#point batch _"]],
) -> Float[Array, "... batch feature distance"]:
    """Every distance of every feature."""
    return jnp.stack(
        [
            jnp.stack([metrics.distance(kind, x, y) for kind in metrics.DISTANCES], axis=-1)
            for x, y in zip(a, b, strict=True)
        ],
        axis=-2,
    )


_rows_alignment = jax.jit(metrics.equivariance_alignment)


def alignment(
    difference: Float[np.ndarray, "image length"],
    permutation: Int[np.ndarray, " image"],
    seed: int,
) -> Float32[np.ndarray, " image"]:
    """Measures how alike a transform moves different images, exactly over all of them.

    Args:
        difference: z_i - z_t,i of every image.
        permutation: pi, which pairs the images.
        seed: Of the columns' permutations; the same for every grid point, so that they can be
            compared.

    Returns:
        d(b_i, b_pi(i)) - d(d_i, d_pi(i)) for every image.
    """
    # Another stream of numbers than the permutation's, which is drawn from the seed alone.
    shuffled = np.random.default_rng((seed, 1)).permuted(difference, axis=0)
    found = []
    for start in range(0, len(difference), _ROWS):
        rows = slice(start, start + _ROWS)
        other = permutation[rows]
        found.append(
            _rows_alignment(difference[rows], difference[other], shuffled[rows], shuffled[other])
        )
    return np.concatenate([np.asarray(each) for each in found])
