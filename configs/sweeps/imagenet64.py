"""Eight augmentations by four seeds: 32 runs of ResNet-18 at 64 pixels, in one program.

    launch/sweep.py configs/sweeps/imagenet64.py --root=workdirs/imagenet64 --fused
    invariance-jax plan --sweep=configs/sweeps/imagenet64.py --topology=v5e:16x16 --nogrid

Which part of a random resized crop makes a network invariant? For a pod: of 256 chips each run has
eight. Not yet run here.
"""

import ml_collections

from invariance_jax.configs import imagenet_base

AUGMENTATIONS = (
    *("none", "flip", "translate", "random_crop", "random_size_center_crop"),
    *("translate_scale", "random_resized_crop", "random_resized_crop_flip"),
)
BATCH_SIZE = 1024


def get_config() -> ml_collections.ConfigDict:
    """Makes the sweep."""
    steps, warmup = (imagenet_base.steps_of(epochs, BATCH_SIZE) for epochs in (30, 1))
    shared = {
        "model.dtype": "bfloat16",
        # One order of images, so that all seeds can share an input.
        "data.shuffle_seed": 0,
        "data.workers": 8,
        "optimizer.learning_rate": 0.4,
        "optimizer.warmup_steps": warmup,
        "train.batch_size": BATCH_SIZE,
        "train.steps": steps,
        "train.log_every": 100,
        "train.evaluate_every": steps // 10,
        "train.checkpoint_every": steps // 10,
    }
    return ml_collections.ConfigDict(
        {
            "configs": ("configs/imagenet64_resnet18.py",),
            "axes": {"augment": {"name": AUGMENTATIONS}, "seed": (0, 1, 2, 3)},
            "overrides": tuple(f"{name}={value}" for name, value in shared.items()),
        }
    )
