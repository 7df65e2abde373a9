"""One case of `augment.py` in its own process, so that peak memory is the case's own.

Reads the case as JSON from its argument and prints the result as one line of JSON.
"""

import functools
import json
import resource
import sys
import time
from typing import Any

import numpy as np
from augment_images import Setting, load_images
from augment_peers import DEGREES, PEERS, Unavailable, timed

OURS = "ours"
# `random_resized_crop` with one form of the resample, whatever the platform would get.
FORMS = ("dense", "banded")
# Operations on images of the output's size, which follow a variant or stand alone.
OPERATIONS = ("rotate", "rand_augment", "auto_augment", "random_erasing", "mixup", "cutmix")


def _batch(case: dict[str, Any]) -> tuple[Any, ...]:
    """Keys, canvases, heights and widths, on the device."""
    import jax
    import jax.numpy as jnp

    setting = Setting(**case["setting"])
    images = load_images(setting, case["batch"], case["seed"], case["data_dir"])
    canvas = np.zeros((case["batch"], setting.canvas, setting.canvas, 3), np.uint8)
    for place, image in zip(canvas, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    sides = np.asarray([image.shape[:2] for image in images], np.int32)
    keys = jax.random.split(jax.random.key(case["seed"]), case["batch"])
    return keys, jnp.asarray(canvas), jnp.asarray(sides[:, 0]), jnp.asarray(sides[:, 1])


def _one_form(form: str, size: int) -> Any:
    """`random_resized_crop` for one image, resampled by one form."""
    import jax.numpy as jnp

    from invariance_jax import augment
    from invariance_jax.transforms import resize

    augmentation = augment.get("random_resized_crop", size=size)
    resize_box = {"dense": resize.resize_box_dense, "banded": resize.resize_box_banded}[form]

    def crop(key: Any, canvas: Any, height: Any, width: Any) -> Any:
        box = augmentation.sample_box(key, height, width)

        def axis(start: Any, length: Any, side: Any) -> resize.Axis:
            visible = (jnp.float32(0), side.astype(jnp.float32))
            return resize.Axis(start, length, (start, start + length), visible, jnp.bool_(False))

        rows, columns = axis(box.top, box.height, height), axis(box.left, box.width, width)
        return resize_box(canvas, rows, columns, size=size)

    return crop


def _operation(name: str) -> Any:
    """A function of (keys, images uint8), a whole batch each."""
    import jax

    from invariance_jax import augment

    if name in augment.MIXINGS:
        mixing = augment.MIXINGS[name]()

        def mix(keys: Any, images: Any) -> Any:
            labels = jax.nn.one_hot(np.arange(len(images)), 1000)
            return mixing(keys[0], images.astype(np.float32) / 255, labels)

        return mix
    policies = {**augment.POLICIES, "rotate": lambda: _random_rotation}
    return jax.vmap(lambda key, image: policies[name]()(key, image.astype(np.float32) / 255))


def _random_rotation(key: Any, image: Any) -> Any:
    """The same range of angles as the peers draw from."""
    import jax

    from invariance_jax.transforms import TRANSFORMS

    angle = jax.random.uniform(key, minval=-DEGREES, maxval=DEGREES)
    return TRANSFORMS["rotate"].apply(image, angle)


def ours(case: dict[str, Any]) -> dict[str, Any]:
    """Times one augmentation, one form of it, or one operation, as one jitted call."""
    import jax

    from invariance_jax import augment

    size = case["setting"]["size"]
    name = case["name"]
    arguments = _batch(case)
    if name in OPERATIONS:
        function, arguments = _operation(name), arguments[:2]
    else:
        one = _one_form(name, size) if name in FORMS else augment.get(name, size=size)
        function = jax.vmap(one)
    begin = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begin
    run = functools.partial(program, *arguments)
    result = timed(lambda: jax.block_until_ready(run()), case["repeats"])
    analysis = program.memory_analysis()
    if analysis is not None:
        result["program_temporary_megabytes"] = analysis.temp_size_in_bytes / 1e6
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        result["device_peak_megabytes"] = stats["peak_bytes_in_use"] / 1e6
    return {"compile_seconds": compile_seconds, **result}


def main() -> None:
    """Runs the case of the command line."""
    case = json.loads(sys.argv[1])
    try:
        result = ours(case) if case["by"] == OURS else PEERS[case["by"]](case)
        result["images_per_second"] = case["batch"] / float(np.median(result["seconds"]))
        core_seconds = float(np.median(result["core_seconds"]))
        result["images_per_core_second"] = case["batch"] / core_seconds
        # Pillow works in other processes; this one's memory says nothing about it.
        if case["by"] != "pillow":
            # Linux counts in KiB, macOS in bytes.
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            result["process_peak_megabytes"] = peak / 1e6
    except Unavailable as error:
        result = {"images_per_second": None, "reason": str(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
