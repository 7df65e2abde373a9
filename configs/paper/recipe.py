r"""The paper's own recipe on ImageNet at 224 pixels, with any of its augmentations.

    invariance-jax train --config=configs/paper/recipe.py:resnet18,translate \
        --workdir=workdirs/translate --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,AUGMENTATION, by default resnet18 with the standard augmentation. 150 epochs,
batch 256, SGD with momentum, learning rate 0.01 divided by ten every 30 epochs, weight decay 1e-3
on every parameter. Vision transformers do not train by that: they take AdamW with warm-up and a
cosine (the paper's own are timm's finished weights). Invariance is measured on training images, as
many as the original's 300 batches of 32.

The original's BatchNorm takes the statistics of each GPU's part of the batch. How many GPUs it had
is not published; a comment hints at 4, so that a part is 64 images, here on whatever devices it
runs. --config.model.ghost_batch_size=256 is one GPU.

Hardware: 1, 2 or 4 GPUs or TPU cores; 8 with --config.model.ghost_batch_size=32. Expected: not yet
run here.
"""

import ml_collections

from invariance_jax.configs import imagenet_base

BATCH_SIZE = 256
GPUS = 4


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model and augmentation."""
    model, _, augmentation = argument.partition(",")
    config = imagenet_base.get_config()
    steps_of_30_epochs = imagenet_base.steps_of(30, BATCH_SIZE)

    config.model.name = model
    config.model.dtype = "float32"
    config.model.ghost_batch_size = BATCH_SIZE // GPUS
    config.augment.name = augmentation or "random_resized_crop_flip"

    config.optimizer.name = "sgd(momentum=0.9)"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = f"step(every={steps_of_30_epochs}, factor=0.1)"
    config.optimizer.warmup_steps = 0
    config.optimizer.weight_decay = 1e-3
    config.optimizer.weight_decay_on = "all"
    if model.startswith("vit"):
        config.optimizer.name = "adamw(b2=0.999)"
        config.optimizer.learning_rate = 3e-4
        config.optimizer.schedule = "cosine"
        config.optimizer.warmup_steps = 10_000
        config.optimizer.weight_decay = 0.1
        config.optimizer.weight_decay_on = "kernels"
        config.optimizer.grad_clip_norm = 1.0

    config.train.batch_size = BATCH_SIZE
    config.train.steps = imagenet_base.steps_of(150, BATCH_SIZE)
    config.train.evaluate_every = imagenet_base.steps_of(1, BATCH_SIZE)
    config.train.checkpoint_every = imagenet_base.steps_of(1, BATCH_SIZE)

    config.eval.split = "train[:9600]"
    return config
