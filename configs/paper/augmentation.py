r"""Which part of random resized crops matters: every augmentation of the paper's table.

    launch/sweep.py configs/paper/augmentation.py:resnet18 --root=workdirs/augmentation

Question: how much of the standard augmentation's accuracy, and of the invariance, do translation
and scale bring, each alone; for ResNets and for vision transformers alike? The argument is the
model: resnet18, resnet50, vit_s16. 15 augmentations, 3 seeds; where the published code resizes
without antialias, so does this. Data: ImageNet. Hardware: 45 trainings of 150 epochs, each on 1, 2
or 4 GPUs. Expected: not yet run here. The twin at 64 pixels:
configs/imagenet64/sweep.py:augmentation.
"""

import ml_collections

AUGMENTATIONS = (
    "none",
    "flip",
    "random_crop",
    "translate",
    "translate_after_crop",
    "random_size_center_crop",
    "translate_scale(antialias=False)",
    "translate_scale_square(antialias=False)",
    "translate_inverse_scale(antialias=False)",
    "crop_translate_scale_square",
    "crop_translate_inverse_scale",
    "exponential_crop",
    "beta_crop(b=2.0)",
    "random_resized_crop",
    "random_resized_crop_flip",
)
SEEDS = (0, 1, 2)


def get_config(model: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the sweep of one model."""
    return ml_collections.ConfigDict(
        {
            "configs": (f"configs/paper/recipe.py:{model}",),
            "axes": {"augment": {"name": AUGMENTATIONS}, "seed": SEEDS},
        }
    )
