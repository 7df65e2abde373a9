"""Images from disk to the devices: sources, canvases, batches in a reproducible order."""

from invariance_jax.data.bad_images import BadImage, BadImageCounter
from invariance_jax.data.canvas import decode, to_canvas
from invariance_jax.data.device import prefetch_to_device
from invariance_jax.data.load import load_source
from invariance_jax.data.pipeline import Batch, batches_at, evaluation_batches, train_batches
from invariance_jax.data.source import DataError, Example, Source
from invariance_jax.data.splits import SplitError
from invariance_jax.data.subset import SubsetSource, of_classes, share_of_each_class

__all__ = [
    "BadImage",
    "BadImageCounter",
    "Batch",
    "DataError",
    "Example",
    "Source",
    "SplitError",
    "SubsetSource",
    "batches_at",
    "decode",
    "evaluation_batches",
    "load_source",
    "of_classes",
    "prefetch_to_device",
    "share_of_each_class",
    "to_canvas",
    "train_batches",
]
