"""The grid as one would write it in PyTorch: a loop over transforms and magnitudes.

Tensors stay on the device; torchvision's functional transforms of the whole batch, channels_last,
autocast where the case says bfloat16. Reads the case as JSON from its argument and prints the
result as one line of JSON.
"""

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torchvision.transforms.v2 import functional

from invariance_jax.transforms import TRANSFORMS

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_model(name: str, size: int) -> torch.nn.Module:
    """The network without its head: images to embeddings."""
    if name.startswith("resnet"):
        model = getattr(torchvision.models, name)()
        model.fc = torch.nn.Identity()
        return model
    return timm.create_model("vit_base_patch16_224", num_classes=0, img_size=size)


def affine(images: torch.Tensor, **changed: Any) -> torch.Tensor:
    """Torchvision's affine map with all parameters but the given ones at their identity."""
    still = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0]}
    bilinear = torchvision.transforms.InterpolationMode.BILINEAR
    return functional.affine(images, **(still | changed), interpolation=bilinear)


def posterize(images: torch.Tensor, bits: float) -> torch.Tensor:
    """Torchvision posterizes bytes only."""
    levels = (images * 255).round().to(torch.uint8)
    return functional.posterize(levels, int(bits)).float() / 255


def apply(name: str, images: torch.Tensor, magnitude: float) -> torch.Tensor:
    """One transform of a batch."""
    pixels = magnitude * images.shape[-1] / 224
    return {
        "shear_x": lambda: affine(images, shear=[magnitude, 0.0]),
        "shear_y": lambda: affine(images, shear=[0.0, magnitude]),
        "translate_x": lambda: affine(images, translate=[pixels, 0.0]),
        "translate_y": lambda: affine(images, translate=[0.0, pixels]),
        "rotate": lambda: affine(images, angle=magnitude),
        "scale_zoom_out": lambda: affine(images, scale=magnitude),
        "scale_zoom_in": lambda: affine(images, scale=magnitude),
        "posterize": lambda: posterize(images, magnitude),
        "decrease_contrast": lambda: functional.adjust_contrast(images, magnitude),
        "increase_contrast": lambda: functional.adjust_contrast(images, magnitude),
        "solarize": lambda: functional.solarize(images, magnitude),
        "decrease_brightness": lambda: functional.adjust_brightness(images, magnitude),
        "increase_brightness": lambda: functional.adjust_brightness(images, magnitude),
    }[name]()


def distances(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and Euclidean."""
    return 1 - torch.cosine_similarity(a, b), torch.linalg.vector_norm(a - b, dim=1)


@torch.inference_mode()
def main() -> None:
    """Runs the case of the command line."""
    case = json.loads(sys.argv[1])
    torch.manual_seed(case["seed"])
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bfloat16 = case["dtype"] == "bfloat16"
    model = make_model(case["model"], case["size"]).eval()
    model = model.to(device, memory_format=torch.channels_last)
    shape = (case["batch"], 3, case["size"], case["size"])
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    cells = [(t, m) for t in TRANSFORMS.values() for m in t.magnitudes if m != t.identity]

    def embed(shown: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return model(functional.normalize(shown, MEAN, DEVIATION)).float()

    def whole_grid() -> None:
        z = embed(images)
        z_other = z.flip(0)
        found = []
        for transform, magnitude in cells:
            z_transformed = embed(apply(transform.name, images, magnitude))
            found.append((distances(z, z_transformed), distances(z_other, z_transformed)))
        if device.type == "cuda":
            torch.cuda.synchronize()

    times = []
    for _ in range(case["repeats"] + 1):
        begin, core_begin = time.perf_counter(), time.process_time()
        whole_grid()
        times.append((time.perf_counter() - begin, time.process_time() - core_begin))
    clock, core = np.median(times[1:], axis=0).tolist()
    done = case["batch"] * (1 + len(cells))
    unit = 1 if sys.platform == "darwin" else 1024
    result = {
        "cells": len(cells),
        "first_seconds": times[0][0],
        "times": times[1:],
        "cells_per_second": done / clock,
        "cells_per_core_second": done / core,
        "images_per_second": case["batch"] / clock,
        "process_peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        result["device_peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    print(json.dumps(result))


if __name__ == "__main__":
    main()
