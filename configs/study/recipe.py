r"""The study's recipe: 20 classes of ImageNet at 64 pixels, a minute on one CPU core.

    invariance-jax train --config=configs/study/recipe.py:resnet8,translate \
        --workdir=workdirs/translate --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,AUGMENTATION. Models: `resnet8`, whose stages see 16, 8 and 4 pixels, and
`vit_mu8`, of 64 patches. Both are trained alike, so that they differ in the architecture alone: 640
steps of 64 images, AdamW. The classes are every fifth of the hundred that Tiny ImageNet and
ImageNet share; ImageNet itself has them too. Hardware: anything.
"""

import ml_collections

CLASSES = (
    *(1, 79, 128, 281, 313, 347, 400, 430, 448, 471),
    *(511, 562, 621, 677, 733, 774, 837, 888, 929, 964),
)
MODELS = {"resnet8": "resnet8(stem='imagenet')", "vit_mu8": "vit_mu8"}
# What is compared by depth.
FEATURES = {
    "resnet8": ("stage1_block1", "stage2_block1"),
    "vit_mu8": ("block1", "block2"),
}


def get_config(argument: str = "resnet8") -> ml_collections.ConfigDict:
    """Makes the config of one model and augmentation."""
    model, _, augmentation = argument.partition(",")
    return ml_collections.ConfigDict(
        {
            "model": {"name": MODELS.get(model, model)},
            "data": {
                "classes": CLASSES,
                "image_size": 64,
                "resize_size": 73,  # the paper's 256 for 224
                "canvas_size": 64,
            },
            "augment": {"name": augmentation or "none"},
            "optimizer": {
                "name": "adamw(b2=0.99)",
                "learning_rate": 3e-3,
                "warmup_steps": 64,
                "weight_decay": 0.05,
                "weight_decay_on": "kernels",
            },
            "train": {
                "batch_size": 64,
                "steps": 640,
                "log_every": 80,
                "evaluate_every": 640,
                "checkpoint_every": 640,
            },
            "eval": {
                # 200 images of the 20 classes among 100.
                "split": "validation[:1000]",
                "per_device_batch_size": 50,
                "features": FEATURES.get(model, ()),
                "local_equivariance": ("translate_x", "rotate", "scale"),
            },
        }
    )
