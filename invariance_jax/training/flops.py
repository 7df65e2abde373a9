"""How much arithmetic a model takes, and how much a device can do."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from invariance_jax.training.state import init_variables

# BatchNorm needs more than one value a channel.
_COUNTED = 2

# Dense bfloat16 operations per second of one JAX device, from the makers' data sheets. A device of
# TPU v2 and v3 is one of a chip's two cores.
PEAK_FLOPS: Mapping[str, float] = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "Tesla T4": 65e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str, configured: float) -> float | None:
    """What one device can do at best.

    Args:
        device_kind: `jax.Device.device_kind`.
        configured: `config.mesh.peak_flops`; it wins unless 0.

    Returns:
        Operations per second in bfloat16, or None for a device that the table lacks, such as a
        CPU.
    """
    return configured or PEAK_FLOPS.get(device_kind)


def training_flops(model: nn.Module, image_size: int) -> float | None:
    """Counts the arithmetic of one image's forward and backward pass.

    These are the model's operations: what augmentation, the optimizer and recomputed activations
    cost on top is not counted, as in PaLM's definition of model FLOPs utilisation (arXiv
    2204.02311, appendix B). XLA counts them in the program before it is optimised; its counts of
    an optimised one miss what became a library's kernel, and the body of a loop counts once.

    Args:
        model: The network.
        image_size: Side of the images, pixels.

    Returns:
        Multiplications and additions, about three times the forward pass; None where JAX was
        told to leave out the CPU, which alone can count before compiling.
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    # How BatchNorm groups its images and what is computed twice changes no count.
    plain = {"ghost_batch_size": 0, "remat": False}
    model = model.clone(**{name: value for name, value in plain.items() if hasattr(model, name)})
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), image_size))

    def loss(variables: Any, images: jax.Array) -> jax.Array:
        (logits, _), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jax.nn.log_softmax(logits))

    images = jax.ShapeDtypeStruct((_COUNTED, image_size, image_size, 3), jnp.float32)
    with jax.default_device(cpu):
        counted = jax.jit(jax.grad(loss)).lower(variables, images).cost_analysis()
    return counted["flops"] / _COUNTED
