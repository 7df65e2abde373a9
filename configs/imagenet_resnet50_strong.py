r"""A strong modern recipe for ResNet-50 on ImageNet, after "ResNet strikes back".

    invariance-jax train --config=configs/imagenet_resnet50_strong.py --workdir=workdirs/resnet50 \
        --config.data.data_dir=~/tensorflow_datasets

Wightman et al. (arXiv 2110.00476), procedure A3: 100 epochs of 2048 images, LAMB, binary
cross-entropy, RandAugment, mixup 0.1 or CutMix. Not as there: 224 pixels in training too (A3: 160),
RandAugment without noise of its strength, and LAMB adapts the step of norms and biases as well.
Hardware: 8 GPUs or TPU cores; on fewer give --config.train.grad_accum_steps=2 or more, where
BatchNorm then takes the statistics of a microbatch. Expected: not yet run here.
"""

import ml_collections

from invariance_jax.configs import imagenet_base

BATCH_SIZE = 2048


def get_config() -> ml_collections.ConfigDict:
    """Makes the config."""
    config = imagenet_base.get_config()

    config.model.name = "resnet50"
    # timm's strength 6 of 10 is 18 of the 30 steps here.
    config.augment.policies = ("rand_augment(n=2, m=18)",)
    config.augment.mixing = ("mixup(alpha=0.1)", "cutmix(alpha=1.0)")

    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 8e-3
    config.optimizer.warmup_steps = imagenet_base.steps_of(5, BATCH_SIZE)
    config.optimizer.weight_decay = 0.02
    config.optimizer.grad_clip_norm = 1.0

    config.train.batch_size = BATCH_SIZE
    config.train.steps = imagenet_base.steps_of(100, BATCH_SIZE)
    config.train.evaluate_every = imagenet_base.steps_of(5, BATCH_SIZE)
    config.train.checkpoint_every = imagenet_base.steps_of(1, BATCH_SIZE)
    # A class that makes up more than a fifth of a mixed image counts as there.
    config.train.loss = "binary_cross_entropy(threshold=0.2)"
    return config
