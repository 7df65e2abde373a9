r"""ResNet-18 on ImageNet at 64 pixels, from TFDS `imagenet2012`.

    invariance-jax train --config=configs/imagenet64_resnet18.py --workdir=workdirs/resnet18 \
        --config.data.data_dir=~/tensorflow_datasets

The stem is 3x3 with stride 2 and no pool, so that the stages see 32, 16, 8 and 4 pixels as in a
CIFAR ResNet. Expected: 300 steps of 64 images, 19 minutes on two busy CPU cores, reach 8.9 % top-1
on 100 of ImageNet's classes (seed 0; chance 1 %). Train longer by --config.train.steps.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Makes the config."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet18(stem='cifar', stem_stride=2)"
    config.model.dtype = "float32"
    config.model.bn_group = 0
    config.model.weights = ""

    config.data = ml_collections.ConfigDict()
    config.data.name = "imagenet2012"
    config.data.data_dir = ""
    config.data.train_split = "train"
    config.data.validation_split = "validation"
    config.data.image_size = 64
    config.data.resize_size = 73  # the paper's 256 for 224
    config.data.canvas_size = 64
    config.data.workers = 0

    config.augment = ml_collections.ConfigDict()
    config.augment.name = "random_resized_crop_flip"
    config.augment.policies = ()
    config.augment.mixing = ()

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "sgd(momentum=0.9)"
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 30
    config.optimizer.weight_decay = 5e-4

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = 64
    config.train.steps = 300
    config.train.log_every = 10
    config.train.evaluate_every = 300
    config.train.checkpoint_every = 50
    config.train.keep_checkpoints = 2
    config.train.label_smoothing = 0.0

    config.eval = ml_collections.ConfigDict()
    config.eval.split = "validation[:500]"
    config.eval.batch_size = 100
    config.eval.grid_batch_size = 20
    config.eval.memory = 2**31
    config.eval.shard_size = 512
    config.eval.features = ()
    config.eval.pooling = "mean"
    config.eval.equivariance = False
    config.eval.per_class = False
    config.eval.domain = "pixel"
    config.eval.translation = "zero"
    config.eval.lie = ()
    config.eval.test_time = ()
    config.eval.seed = 0

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = 0
    return config
