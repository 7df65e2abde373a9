r"""Weights of torchvision or timm, measured on ImageNet at 224 pixels without any training.

    invariance-jax evaluate --config=configs/evaluate.py:resnet50,resnet50.safetensors \
        --workdir=workdirs/resnet50 --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,WEIGHTS. Weights are a .safetensors or .npz file with the names that
torchvision (ResNets) or timm (vision transformers, such as vit_b16) gives them. Expected: top-1 as
the file's publisher states it for a centre crop of 224 out of 256 pixels.

The networks of timm that want other means than ImageNet's are measured with ImageNet's.
"""

import ml_collections


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model and its weights."""
    model, _, weights = argument.partition(",")
    config = ml_collections.ConfigDict()
    config.seed = 0

    config.model = ml_collections.ConfigDict()
    config.model.name = model
    config.model.dtype = "float32"
    config.model.bn_group = 0
    config.model.weights = weights

    config.data = ml_collections.ConfigDict()
    config.data.name = "imagenet2012"
    config.data.data_dir = ""
    config.data.train_split = "train"
    config.data.validation_split = "validation"
    config.data.image_size = 224
    config.data.resize_size = 256
    config.data.canvas_size = 512
    config.data.workers = 0

    config.augment = ml_collections.ConfigDict()
    config.augment.name = "none"
    config.augment.policies = ()
    config.augment.mixing = ()

    # Nothing is trained; these are the paper's.
    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "sgd(momentum=0.9)"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    config.optimizer.weight_decay = 1e-3

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = 256
    config.train.steps = 1
    config.train.log_every = 1
    config.train.evaluate_every = 1
    config.train.checkpoint_every = 1
    config.train.keep_checkpoints = 1
    config.train.label_smoothing = 0.0

    config.eval = ml_collections.ConfigDict()
    config.eval.split = "validation[:10000]"
    config.eval.batch_size = 256
    config.eval.grid_batch_size = 0
    config.eval.memory = 2**32
    config.eval.shard_size = 512
    config.eval.features = ()
    config.eval.pooling = "mean"
    config.eval.equivariance = False
    config.eval.per_class = False
    config.eval.domain = "pixel"
    config.eval.translation = "zero"
    config.eval.lie = (
        *("translate_x", "translate_y", "rotate", "scale", "shear_x", "shear_y"),
        *("stretch_x", "stretch_y", "brightness", "contrast", "saturation", "hue"),
    )
    config.eval.test_time = (
        *("none", "random_resized_crop"),
        *(f"scaled_center_crop(k={k})" for k in range(15)),
    )
    config.eval.seed = 0

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = 0
    return config
