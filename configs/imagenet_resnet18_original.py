r"""The paper's own recipe: ResNet-18 on ImageNet, with any of its augmentations.

    invariance-jax train --config=configs/imagenet_resnet18_original.py:translate \
        --workdir=workdirs/translate --config.data.data_dir=~/tensorflow_datasets

The argument is the augmentation; by default the standard one. 150 epochs, batch 256, SGD with
momentum, learning rate 0.01 divided by ten every 30 epochs, weight decay on every parameter.
The original's BatchNorm takes the statistics of each GPU's part of the batch. How many GPUs it
had is not in its code: here a part is 32 images, as on 8 GPUs, on whatever devices it runs.
Hardware: 1, 2, 4 or 8 GPUs or TPU cores. Expected: not yet run here.
"""

import ml_collections

from invariance_jax.configs import imagenet_base

BATCH_SIZE = 256
GPUS = 8


def get_config(augmentation: str = "random_resized_crop_flip") -> ml_collections.ConfigDict:
    """Makes the config of one augmentation."""
    config = imagenet_base.get_config()
    steps_of_30_epochs = imagenet_base.steps_of(30, BATCH_SIZE)

    config.model.dtype = "float32"
    config.model.ghost_batch_size = BATCH_SIZE // GPUS
    config.augment.name = augmentation

    config.optimizer.name = "sgd(momentum=0.9)"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = f"step(every={steps_of_30_epochs}, factor=0.1)"
    config.optimizer.warmup_steps = 0
    config.optimizer.weight_decay = 1e-3
    config.optimizer.weight_decay_on = "all"

    config.train.batch_size = BATCH_SIZE
    config.train.steps = imagenet_base.steps_of(150, BATCH_SIZE)
    config.train.evaluate_every = imagenet_base.steps_of(1, BATCH_SIZE)
    config.train.checkpoint_every = imagenet_base.steps_of(1, BATCH_SIZE)
    return config
