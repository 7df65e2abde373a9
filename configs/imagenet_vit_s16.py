r"""A strong recipe for ViT-S/16 on ImageNet, after "Better plain ViT baselines".

    invariance-jax train --config=configs/imagenet_vit_s16.py --workdir=workdirs/vit_s16 \
        --config.data.data_dir=~/tensorflow_datasets

Beyer et al. (arXiv 2205.01580): 90 epochs of 1024 images, AdamW, 10,000 steps of warm-up, cosine
schedule, mixup 0.2, RandAugment. Not as there: a class token and learned position embeddings
(timm's network, which the paper's measures are defined on) where they pool all tokens and fix the
embeddings; crops of at least 8 % of the image (there 5 %).
Hardware: 8 GPUs or TPU cores; on fewer give --config.train.grad_accum_steps=2 or more, which
changes no number, or --config.model.remat=True. Expected: not yet run here.
"""

import ml_collections

from invariance_jax.configs import imagenet_base


def get_config() -> ml_collections.ConfigDict:
    """Makes the config."""
    config = imagenet_base.get_config()

    config.model.name = "vit_s16"
    # Strength 10 of 10 there: the strongest of the steps here.
    config.augment.policies = ("rand_augment(n=2, m=30)",)
    config.augment.mixing = ("mixup(alpha=0.2)",)

    config.optimizer.name = "adamw(b1=0.9, b2=0.999)"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 10_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.grad_clip_norm = 1.0

    config.train.evaluate_every = imagenet_base.steps_of(5)
    return config
