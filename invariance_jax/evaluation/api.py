"""The front door: how invariant is this function, on these images?"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from invariance_jax import augment, data, devices
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.grid import Invariance, Pooling
from invariance_jax.evaluation.measurement import MAIN
from invariance_jax.evaluation.metrics import DISTANCES, Distance
from invariance_jax.models import Model, Preprocessing, from_function
from invariance_jax.transforms import TRANSFORMS, Domain, PaddingMode, Transform
from invariance_jax.transforms.resize import Interpolation


def measure(
    function: Model | Callable[[Any], Any],
    images: np.ndarray | str | pathlib.Path | data.Source,
    *,
    transforms: Mapping[str, Transform] = TRANSFORMS,
    distance: Distance = "cosine",
    domain: Domain = "pixel",
    padding_mode: PaddingMode = "constant",
    features: Sequence[str] = (),
    pooling: Pooling = "mean",
    equivariance: bool = False,
    seed: int = 0,
    image_size: int | None = None,
    resize_size: int | None = None,
    interpolation: Interpolation | None = None,
    squash: bool | None = None,
    canvas_size: int | None = None,
    batch_size: int = 0,
    memory: int = 2**31,
    workers: int = 0,
    on_host: bool | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Measures how invariant a function of images is to every transform (paper, section 3).

    Args:
        function: From float32 images in [0, 1], [N, H, W, 3], to vectors, [N, D]; or a model of
            `load_model`. A function that JAX can trace runs inside the one compiled program, on
            all devices; any other, of numpy or PyTorch say, is called on the host.
        images: An array [N, H, W, 3], uint8 or floating point in [0, 1]; a folder of images; or a
            source of `invariance_jax.data`. At least two.
        transforms: The grid: transforms by name, each with as many magnitudes.
        distance: What `relative_invariance`, `baseline` and `transformed` are measured by,
            "cosine" or "euclidean"; the variables of both carry their names.
        domain: What the transforms act on, "pixel" or, of models, "normalized" values.
        padding_mode: What translations show where the image has left: "constant" (black), "wrap",
            "context" (what stood beside the centre crop).
        features: Of models: what is compared beside the embedding; see `pooling`.
        pooling: How feature maps become vectors, "mean" or "none".
        equivariance: Whether `equivariance_alignment` is measured too.
        seed: Of the permutation that pairs each image with another one for the baseline.
        image_size: Side of what the function sees, pixels. By default that of the array's images,
            the model's own, or 224.
        resize_size: Shorter side before the centre crop. By default arrays are not resized, and
            others as a model of `load_model` wants it, or to 256 for 224.
        interpolation: The filter of that resize, "bilinear" or "bicubic"; by default as the model
            wants it, or bilinear.
        squash: Whether that resize makes images square, whatever their aspect, before the crop; by
            default as the model wants it.
        canvas_size: Longest side that images keep before they are resized, pixels; twice
            `resize_size` by default, and all of an array's.
        batch_size: Images a forward pass; 0 for as many as fit into `memory`.
        memory: Bytes of a device's memory that the program may fill.
        workers: Processes that decode; 0 for threads.
        on_host: Whether the function is called on the host; None to find out.
        progress: Whether to show a bar.

    Returns:
        The dataset that `evaluate` writes, dims (transform, magnitude, image):
        `relative_invariance_cosine` and so on, in [-inf, 1]: 1 is invariant, 0 is no nearer than
        another image; and `relative_invariance`, `baseline` and `transformed` by the distance asked
        for.

    Raises:
        UserError: The function or the images cannot be used; the message says why.

    Examples:
        >>> pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
        >>> found = measure(lambda images: images.mean((1, 2)), pixels, progress=False)
        >>> found.relative_invariance.sel(transform="rotate").shape
        (10, 3)
    """
    if distance not in DISTANCES:
        raise UserError(f"distance is {distance!r}; expected one of: {', '.join(DISTANCES)}")
    source = _source(images)
    # Of functions the paper's, 224 of 256 pixels; other sizes keep the proportion.
    wanted = getattr(function, "preprocessing", None) or Preprocessing()
    own_size = getattr(function, "image_size", None) or wanted.image_size
    size, resize, canvas = _sizes(wanted, own_size, images, image_size, resize_size)
    if isinstance(function, Model):
        model = function
    else:
        model = from_function(function, on_host=on_host, image_size=size)
    if len(source) < 2:
        raise UserError(f"images holds {len(source)} image; expected at least 2 to compare")
    if domain == "normalized" and model.num_classes is None:
        raise UserError(
            "domain is 'normalized', but what a function of its own normalises is not known; "
            "expected 'pixel', or a model of load_model"
        )
    preprocess = augment.get(
        "none",
        size=size,
        resize=resize,
        interpolation=interpolation or wanted.interpolation,
        squash=wanted.squash if squash is None else squash,
    )
    measurement = Invariance(
        transforms=transforms,
        preprocess=preprocess,
        domain=domain,
        padding_mode=padding_mode,
        features=tuple(features),
        pooling=pooling,
        equivariance=equivariance,
        seed=seed,
        show_progress=progress,
    )
    driver = Driver(
        model=model,
        measurements=[measurement],
        source=source,
        preprocess=preprocess,
        canvas_size=canvas_size or canvas,
        workers=workers,
        mesh=devices.make_mesh(),
        per_device_batch_size=batch_size,
        memory=memory,
        shard_size=512,
        description=f"{model.name} on {source.name}" if progress else "",
    )
    ((_, found),) = driver.run()
    main = measurement.datasets(found, driver.images)[MAIN]
    names = ("relative_invariance", "baseline", "transformed")
    chosen = {name: main[f"{name}_{distance}"] for name in names}
    attributes = {"model": model.name, "dataset": source.name, "split": source.split}
    return main.assign(chosen).assign_attrs(attributes | {"versions": results.versions()})


def _source(images: Any) -> data.Source:
    if isinstance(images, str | pathlib.Path):
        return data.FolderSource(images)
    if isinstance(images, data.Source):
        return images
    return data.ArraySource(images)


def _sizes(
    wanted: Preprocessing,
    own_size: int,
    images: Any,
    image_size: int | None,
    resize_size: int | None,
) -> tuple[int, int, int]:
    """Sides of what the function sees, of the resized image, and of the canvas."""
    shape = getattr(images, "shape", None)
    if shape is not None and len(shape) == 4:
        square = shape[1] == shape[2]
        if image_size is None and not square:
            raise UserError(
                f"images have shape {tuple(shape)}, which is not square; give image_size for the "
                "side of the centre crop that the function shall see"
            )
        size = shape[1] if image_size is None else image_size
        resize = resize_size or (size if square else _resized(Preprocessing(), size))
        return size, resize, max(shape[1:3])
    size = image_size or own_size
    resize = resize_size or _resized(wanted, size)
    return size, resize, 2 * resize


def _resized(preprocessing: Preprocessing, size: int) -> int:
    return preprocessing.replaced(image_size=size).resize_size
