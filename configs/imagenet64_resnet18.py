r"""ResNet-18 on ImageNet at 64 pixels, from TFDS `imagenet2012`.

    invariance-jax train --config=configs/imagenet64_resnet18.py --workdir=workdirs/resnet18 \
        --config.data.data_dir=~/tensorflow_datasets

The stem is 3x3 with stride 2 and no pool, so that the stages see 32, 16, 8 and 4 pixels as in a
CIFAR ResNet. Expected: 300 steps of 64 images, 19 minutes on two busy CPU cores, reach 8.9 % top-1
on 100 of ImageNet's classes (seed 0; chance 1 %). Train longer by --config.train.steps.
"""

import ml_collections

from invariance_jax.configs import imagenet_base


def get_config() -> ml_collections.ConfigDict:
    """Makes the config."""
    config = imagenet_base.get_config()

    config.model.name = "resnet18(stem='cifar', stem_stride=2)"
    config.model.dtype = "float32"

    config.data.image_size = 64
    config.data.resize_size = 73  # the paper's 256 for 224
    config.data.canvas_size = 64
    config.data.workers = 0

    config.optimizer.name = "sgd(momentum=0.9)"
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup_steps = 30
    config.optimizer.weight_decay = 5e-4
    config.optimizer.weight_decay_on = "all"

    config.train.batch_size = 64
    config.train.steps = 300
    config.train.log_every = 10
    config.train.evaluate_every = 300
    config.train.checkpoint_every = 50

    config.eval.split = "validation[:500]"
    config.eval.per_device_batch_size = 20
    return config
