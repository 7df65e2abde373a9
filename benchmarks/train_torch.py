"""One model of `train.py` in PyTorch: compiled, channels last, autocast, fused optimizer.

Reads the case as JSON from its argument and prints the result as one line of JSON. It imports
nothing of invariance_jax, so that any Python with torch, torchvision and timm can run it.
"""

import json
import statistics
import sys
import time
from typing import Any

import timm
import torch
import torchvision

TIMM = {"vit_s16": "vit_small_patch16_224", "vit_b16": "vit_base_patch16_224"}
CLASSES = 1000


def _resnet8() -> torch.nn.Module:
    """Ours of that name: a 3x3 stem of stride 2 and three of torchvision's blocks."""
    block = torchvision.models.resnet.BasicBlock

    def halved(before: int, after: int) -> torch.nn.Module:
        shortcut = torch.nn.Conv2d(before, after, 1, 2, bias=False)
        return block(before, after, 2, torch.nn.Sequential(shortcut, torch.nn.BatchNorm2d(after)))

    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(inplace=True),
        block(16, 16),
        halved(16, 32),
        halved(32, 64),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, CLASSES),
    )


def _model(name: str, size: int) -> torch.nn.Module:
    if name == "resnet8":
        return _resnet8()
    if name == "vit_mu8":
        sizes = {"patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}
        return timm.models.VisionTransformer(img_size=size, num_classes=CLASSES, **sizes)
    if name in TIMM:
        return timm.create_model(TIMM[name], img_size=size, num_classes=CLASSES)
    return torchvision.models.get_model(name, num_classes=CLASSES)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Times the step without augmentation, from images on the device."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(case["seed"])
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last
    model = _model(case["model"], case["size"]).to(device, memory_format=layout).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True
    )
    shape = (case["batch"], 3, case["size"], case["size"])
    images = torch.randn(shape, device=device).to(memory_format=layout)
    label = torch.randint(0, CLASSES, (case["batch"],), device=device)
    dtype = getattr(torch, case["dtype"])

    def loss_of(images: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return torch.nn.functional.cross_entropy(model(images), label)

    compiled = torch.compile(loss_of)

    def run(steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            loss = compiled(images, label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        else:
            loss.item()
        return time.perf_counter() - begun

    compile_seconds = run(1)
    run(case["warmup"])
    seconds = [run(case["steps"]) for _ in range(case["repeats"])]
    return {
        "images_per_second": case["steps"] * case["batch"] / statistics.median(seconds),
        "seconds": seconds,
        "compile_and_first_step_seconds": compile_seconds,
        "device_peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
