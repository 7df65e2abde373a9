"""Augmentation variants: distributions over source boxes, resampled inside the jitted step."""

from invariance_jax.augment.augmentation import Augmentation
from invariance_jax.augment.boxes import Box
from invariance_jax.augment.variants import NAMES, get

__all__ = ["NAMES", "Augmentation", "Box", "get"]
