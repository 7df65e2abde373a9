"""Augmentation variants: distributions over source boxes, resampled inside the jitted step.

Beside them stand random operations on images that are already resampled (`rand_augment`,
`auto_augment`, `random_erasing`, `random_transform`) and on batches with their labels (`mixup`,
`cutmix`). `PerClass` adds what an image gets because of its class. A learned augmentation
(`parse_learned`) acts on normalised images.
"""

from invariance_jax.augment.boxes import Box
from invariance_jax.augment.learned import LearnedAugmentation, parse_learned
from invariance_jax.augment.mixing import cutmix, mixup
from invariance_jax.augment.per_class import PerClass
from invariance_jax.augment.pipeline import (
    MIXINGS,
    POLICIES,
    OneMixing,
    WithPolicies,
    one_mixing,
    with_policies,
)
from invariance_jax.augment.policies import (
    auto_augment,
    rand_augment,
    random_erasing,
    random_transform,
)
from invariance_jax.augment.policy_tables import AUTOAUGMENT_POLICIES
from invariance_jax.augment.variants import NAMES, Augmentation, get, parse, translate_in_context
