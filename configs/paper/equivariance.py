r"""Do embeddings of transformed images move in one direction?

    invariance-jax evaluate --config=configs/paper/equivariance.py:resnet18,resnet18.safetensors \
        --workdir=workdirs/equivariance --config.data.data_dir=~/tensorflow_datasets

Question: what is not invariant may be equivariant: is the change of an embedding under a transform
alike for all images? The argument is that of invariance.py. Data: ImageNet. Hardware: one GPU;
disk while it runs (118 grid points x 9,600 images x 512 features x 4 bytes are 2.3
GB for a ResNet-18, and 9.3 GB for a ResNet-50). Expected: not yet run here.
"""

import ml_collections

from invariance_jax.configs.paper import invariance


def get_config(argument: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the config of one model, its weights and a split."""
    config = invariance.get_config(argument)
    config.eval.measurements = ("invariance",)
    config.eval.equivariance = True
    return config
