r"""ResNet-18 on ImageNet at 224 pixels, plainly; the other ImageNet recipes build on it.

    invariance-jax train --config=configs/imagenet_base.py --workdir=workdirs/base \
        --config.data.data_dir=~/tensorflow_datasets

90 epochs of 1024 images: SGD with momentum, cosine schedule, standard augmentation, bfloat16.
Hardware: any number of GPUs or TPU cores that divides 1024. Expected: not yet run here.
"""

import ml_collections

TRAIN_IMAGES = 1_281_167
BATCH_SIZE = 1024


def steps_of(epochs: float, batch_size: int = BATCH_SIZE) -> int:
    """Steps that show so many epochs of ImageNet's training images."""
    return round(epochs * TRAIN_IMAGES / batch_size)


def get_config() -> ml_collections.ConfigDict:
    """Makes the config."""
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = "resnet18"
    config.model.dtype = "bfloat16"
    config.model.bn_group = 0
    config.model.weights = ""
    config.model.remat = False

    config.data = ml_collections.ConfigDict()
    config.data.name = "imagenet2012"
    config.data.data_dir = ""
    config.data.train_split = "train"
    config.data.validation_split = "validation"
    config.data.image_size = 224
    config.data.resize_size = 256
    config.data.canvas_size = 512
    config.data.workers = 8
    config.data.label_feature = "label"
    config.data.classes = ()
    config.data.fraction = 1.0
    config.data.subset_seed = 0
    config.data.skip_bad_images = False

    config.augment = ml_collections.ConfigDict()
    config.augment.name = "random_resized_crop_flip"
    config.augment.policies = ()
    config.augment.mixing = ()

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "sgd(momentum=0.9, nesterov=True)"
    config.optimizer.learning_rate = 0.4  # 0.1 for each 256 images
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = steps_of(5)
    config.optimizer.weight_decay = 1e-4
    config.optimizer.weight_decay_on = "kernels"
    config.optimizer.clip_norm = 0.0

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = BATCH_SIZE
    config.train.steps = steps_of(90)
    config.train.log_every = 100
    config.train.evaluate_every = steps_of(1)
    config.train.checkpoint_every = steps_of(1)
    config.train.keep_checkpoints = 2
    config.train.label_smoothing = 0.0
    config.train.loss = "cross_entropy"
    config.train.accumulate = 1
    config.train.ema = 0.0

    config.eval = ml_collections.ConfigDict()
    config.eval.split = "validation[:5000]"
    config.eval.batch_size = 1024
    config.eval.grid_batch_size = 0
    config.eval.memory = 2**33
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
    config.mesh.model = 1
    config.mesh.parameters = "replicated"
    config.mesh.peak_flops = 0.0
    return config
