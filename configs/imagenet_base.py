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
    """Makes the config: what differs from the defaults of `invariance_jax.config`."""
    return ml_collections.ConfigDict(
        {
            "model": {"name": "resnet18", "dtype": "bfloat16"},
            "data": {"workers": 8},
            "augment": {"name": "random_resized_crop_flip"},
            "optimizer": {
                "name": "sgd(momentum=0.9, nesterov=True)",
                "learning_rate": 0.4,  # 0.1 for each 256 images
                "warmup_steps": steps_of(5),
                "weight_decay_on": "kernels",
            },
            "train": {
                "batch_size": BATCH_SIZE,
                "steps": steps_of(90),
                "evaluate_every": steps_of(1),
                "checkpoint_every": steps_of(1),
            },
            "eval": {"split": "validation[:5000]", "memory": 2**33},
        }
    )
