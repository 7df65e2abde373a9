r"""Weights of torchvision or timm, measured on ImageNet at 224 pixels without any training.

    invariance-jax evaluate --config=configs/evaluate.py:resnet50,resnet50.safetensors \
        --workdir=workdirs/resnet50 --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,WEIGHTS. Weights are a .safetensors or .npz file with the names that
torchvision (ResNets) or timm (vision transformers, such as vit_b16) gives them. Expected: top-1 as
the file's publisher states it for a centre crop of 224 out of 256 pixels.

Beside the grid it measures the local equivariance error (about a tenth of the grid's time) and the
accuracy under 17 test-time crops of the validation split; leave them out with
--config.eval.lie='()' and --config.eval.test_time='()'.

The networks of timm that want other means than ImageNet's are measured with ImageNet's.
"""

import ml_collections

from invariance_jax.configs import imagenet_base


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model and its weights."""
    model, _, weights = argument.partition(",")
    config = imagenet_base.get_config()
    config.model.name = model
    config.model.weights = weights
    config.model.dtype = "float32"
    # Nothing is trained.
    config.augment.name = "none"
    config.optimizer.warmup_steps = 0
    config.train.steps = 1
    config.eval.split = "validation[:10000]"
    config.eval.batch_size = 256
    config.eval.memory = 2**32
    config.eval.lie = (
        *("translate_x", "translate_y", "rotate", "scale", "shear_x", "shear_y"),
        *("stretch_x", "stretch_y", "brightness", "contrast", "saturation", "hue"),
    )
    config.eval.test_time = (
        *("none", "random_resized_crop"),
        *(f"scaled_center_crop(k={k})" for k in range(15)),
    )
    return config
