r"""A short recipe at 64 pixels: 100 classes of ImageNet, for one GPU or a patient laptop.

    invariance-jax train --config=configs/imagenet64/recipe.py:resnet18,translate \
        --workdir=workdirs/translate --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,AUGMENTATION. ResNets have a 3x3 stem of stride 2 without pool, so that the
stages see 32, 16, 8 and 4 pixels; a vision transformer is `vit_mu8`, of 64 patches. The first 100
classes, 500 steps of 128 images, half an epoch: at the rate of imagenet64_resnet18.py an hour of
two busy CPU cores. On a GPU train longer by --config.train.steps=10000. Expected: not yet run here.
"""

import ml_collections

from invariance_jax.configs import imagenet64_resnet18

STEM = "stem='cifar', stem_stride=2"


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model and augmentation."""
    model, _, augmentation = argument.partition(",")
    config = imagenet64_resnet18.get_config()
    config.model.name = at_64_pixels(model)
    config.data.classes = tuple(range(100))
    config.augment.name = augmentation or "random_resized_crop_flip"

    config.optimizer.warmup_steps = 50
    if model.startswith("vit"):
        config.optimizer.name = "adamw(b2=0.99)"
        config.optimizer.learning_rate = 2e-3
        config.optimizer.weight_decay = 0.05
        config.optimizer.weight_decay_on = "kernels"

    config.train.batch_size = 128
    config.train.steps = 500
    config.train.log_every = 100
    config.train.evaluate_every = 500
    config.train.checkpoint_every = 100

    config.eval.split = "train[:1000]"
    config.eval.per_device_batch_size = 50
    return config


def at_64_pixels(model: str) -> str:
    """The network of 64-pixel images that stands for one of 224."""
    if model.startswith("vit"):
        return "vit_mu8"
    name, _, options = model.partition("(")
    return f"{name}({STEM}, {options}" if options else f"{name}({STEM})"
