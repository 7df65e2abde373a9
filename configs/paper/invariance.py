r"""Where does invariance come from: trained, trained without augmentation, untrained.

    invariance-jax evaluate --config=configs/paper/invariance.py:resnet18,resnet18.safetensors \
        --workdir=workdirs/invariance --config.data.data_dir=~/tensorflow_datasets

Question: does training data, augmentation or architecture make a network invariant, and to what?
The argument is MODEL,WEIGHTS or MODEL,WEIGHTS,validation: training images, as in the paper, or
validation images (another --workdir for these). The paper's networks: ResNet-18 of torchvision;
the recipe's ResNet-18 trained with `none` (`invariance-jax export` writes its weights); ViT-B/16 of
timm; each untrained too (--untrained, without WEIGHTS). The first two differ in recipe and
augmentation at once. Then `invariance-jax report workdirs/invariance`. Data: ImageNet. Hardware:
one GPU, for 9,600 images x 118 forward passes. Expected: not yet run here.
"""

import ml_collections

from invariance_jax.configs import evaluate
from invariance_jax.errors import UserError


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model, its weights and a split."""
    model, weights, split, *_ = [*argument.split(","), "", ""]
    if argument.count(",") > 2 or split not in ("", "train", "validation"):
        raise UserError(
            f"the argument is {argument!r}; expected MODEL,WEIGHTS or MODEL,WEIGHTS,SPLIT with "
            "train or validation"
        )
    config = evaluate.get_config(f"{model},{weights}")
    config.eval.split = f"{split or 'train'}[:9600]"
    config.eval.local_equivariance = ()
    config.eval.test_time = ()
    return config
