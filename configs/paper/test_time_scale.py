r"""Which sizes of test crops does a training make a network used to?

    launch/sweep.py configs/paper/test_time_scale.py:resnet18 --root=workdirs/test_time

Question: accuracy on the centre crop, on random resized crops, and on 15 centred crops of ever
smaller area (side down to 1/6), of networks trained with different scales. The argument is the
model. Data: ImageNet. Hardware: 15 runs as in augmentation.py. Expected: not yet run here. The twin
at 64 pixels: configs/imagenet64/sweep.py:test_time_scale.
"""

import ml_collections

from invariance_jax.configs.paper.augmentation import SEEDS

AUGMENTATIONS = (
    "none",
    "translate",
    "random_size_center_crop",
    "translate_inverse_scale(antialias=False)",
    "random_resized_crop",
)
CROPS = ("none", "random_resized_crop", *(f"scaled_center_crop(k={k})" for k in range(15)))


def get_config(model: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the sweep of one model."""
    return ml_collections.ConfigDict(
        {
            "configs": (f"configs/paper/recipe.py:{model}",),
            "axes": {"augment": {"name": AUGMENTATIONS}, "seed": SEEDS},
            "overrides": (f'eval.test_time="{CROPS}"', "eval.measurements=accuracy"),
        }
    )
