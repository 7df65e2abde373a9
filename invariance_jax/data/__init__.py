"""Images from disk to the devices: sources, canvases, batches in a reproducible order."""

from invariance_jax.data.canvas import decode, to_canvas
from invariance_jax.data.device import prefetch_to_device
from invariance_jax.data.load import load_source
from invariance_jax.data.pipeline import Batch, batches_at, evaluation_batches, train_batches
from invariance_jax.data.source import DataError, Example, Source
from invariance_jax.data.splits import SplitError

__all__ = [
    "Batch",
    "DataError",
    "Example",
    "Source",
    "SplitError",
    "batches_at",
    "decode",
    "evaluation_batches",
    "load_source",
    "prefetch_to_device",
    "to_canvas",
    "train_batches",
]
