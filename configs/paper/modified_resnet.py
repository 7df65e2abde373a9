r"""Does a network whose strides are pooled need translated images less?

    launch/sweep.py configs/paper/modified_resnet.py --root=workdirs/modified

Question: ResNet-18 halves its maps by strides, which lose shifts of one pixel. With max-pools in
their place, does training without augmentation come nearer to training with translation? Data:
ImageNet. Hardware: 24 runs, up to twice as long as in augmentation.py. Expected: not yet run here.
The twin at 64 pixels: configs/imagenet64/sweep.py:modified_resnet.
"""

import ml_collections

from invariance_jax.configs.paper.augmentation import SEEDS

MODELS = (
    "resnet18",
    "modified_resnet18(stage3_pool=False, stage4_pool=False)",
    "modified_resnet18(stage4_pool=False)",
    "modified_resnet18",
)


def get_config() -> ml_collections.ConfigDict:
    """Makes the sweep."""
    augmentations = ("none", "translate")
    return ml_collections.ConfigDict(
        {
            "configs": ("configs/paper/recipe.py:resnet18",),
            "axes": {
                "model": {"name": MODELS},
                "augment": {"name": augmentations},
                "seed": SEEDS,
            },
        }
    )
