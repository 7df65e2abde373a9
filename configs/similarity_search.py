r"""What varies within each class of ImageNet, as weights of torchvision or timm see it.

    invariance-jax search --config=configs/similarity_search.py:resnet18,resnet18.safetensors \
        --workdir=workdirs/resnet18 --config.data.data_dir=~/tensorflow_datasets

The argument is MODEL,WEIGHTS, as of configs/evaluate.py. 63 rows of AutoAugment on up to 1000 pairs
of each class's training images (1,300 images give 640); 47 of the rows need a forward pass.
"""

import ml_collections

from invariance_jax.configs import evaluate


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model and its weights."""
    return evaluate.get_config(argument)
