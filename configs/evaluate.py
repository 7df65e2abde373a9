r"""Weights of torchvision or timm, measured on ImageNet at 224 pixels without any training.

    invariance-jax evaluate --config=configs/evaluate.py:resnet50,resnet50.safetensors \
        --workdir=workdirs/resnet50 --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,WEIGHTS or MODEL,WEIGHTS,crops. docs/models.md lists the models and the forms
of weights.
Expected: top-1 as the file's publisher states it for a centre crop of 224 out of 256 pixels.

Beside the grid it measures the local equivariance error (about a tenth of the grid's time; leave
it out with --config.eval.local_equivariance='()') and, image by image and class by class, the
accuracy on the validation split. With `crops` it measures that accuracy under the 17 test-time
crops of the paper, by count of forward passes 70 % of the grid.

Images are resized, cropped and normalised as the weights want it, by the `config.json` of timm or
the `preprocessor_config.json` of Hugging Face beside them, or by a table of what timm and
torchvision publish (vit_base_patch16_224.augreg_in1k.safetensors), or else as ImageNet's are in
torchvision. A line says which; --config.data.mean, std, interpolation, squash, resize_size and
image_size say otherwise.
"""

import re

import ml_collections

from invariance_jax.configs import imagenet_base
from invariance_jax.errors import UserError
from invariance_jax.models import preprocessing_of


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model and its weights."""
    # Commas between a model's options do not count.
    model, weights, crops, *more = [*re.split(r",(?![^()]*\))", argument), "", ""]
    if any(more) or crops not in ("", "crops"):
        raise UserError(
            f"the argument is {argument!r}; expected MODEL,WEIGHTS or MODEL,WEIGHTS,crops"
        )
    config = imagenet_base.get_config()
    config.model.name = model
    config.model.weights = weights
    config.model.dtype = "float32"
    wanted = preprocessing_of(model, weights)
    config.data.update(
        {
            "image_size": wanted.image_size,
            "resize_size": wanted.resize_size,
            "canvas_size": max(512, 2 * wanted.resize_size),
            "interpolation": wanted.interpolation,
            "squash": wanted.squash,
            "mean": wanted.mean,
            "std": wanted.std,
        }
    )
    # Nothing is trained.
    config.augment.name = "none"
    config.optimizer.warmup_steps = 0
    config.train.steps = 1
    config.eval.split = "validation[:10000]"
    config.eval.memory = 2**32
    config.eval.local_equivariance = (
        *("translate_x", "translate_y", "rotate", "scale", "shear_x", "shear_y"),
        *("stretch_x", "stretch_y", "brightness", "contrast", "saturation", "hue"),
    )
    config.eval.test_time = ("none",)
    if crops:
        config.eval.test_time += (
            "random_resized_crop",
            *(f"scaled_center_crop(k={k})" for k in range(15)),
        )
    return config
