"""Images from disk to the devices: sources, canvases, batches in a reproducible order."""

from invariance_jax.data.batches import (
    Batch,
    batches_at,
    prefetch_to_device,
    train_batches,
)
from invariance_jax.data.decode import BadImage, BadImageCounter, decode, to_canvas
from invariance_jax.data.folder import FolderSource
from invariance_jax.data.imagenet import with_imagenet_labels
from invariance_jax.data.sources import (
    ARROW,
    FOLDER,
    ArraySource,
    DataError,
    Example,
    Source,
    SplitError,
    SubsetSource,
    from_config,
    load_source,
    of_classes,
    share_of_each_class,
)
