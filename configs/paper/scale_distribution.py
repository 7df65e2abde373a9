r"""Does it matter how the areas of random resized crops are distributed?

    launch/sweep.py configs/paper/scale_distribution.py:resnet18 --root=workdirs/scales

Question: what do more small crops (beta), or more large ones (exponential), do to accuracy and to
invariance to scale? The argument is the model. The paper's b and rates are not published: these
span what lies between the whole image and the smallest crops. `beta_crop(b=1.0)` is
`random_resized_crop`. Data: ImageNet. Hardware: 30 runs as in augmentation.py. Expected: not yet
run here. The twin at 64 pixels: configs/imagenet64/sweep.py:scale_distribution.
"""

import ml_collections

from invariance_jax.configs.paper.augmentation import SEEDS


def get_config(model: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the sweep of one model."""
    distributions = (
        *(f"beta_crop(b={b})" for b in (0.5, 1.0, 2.0, 4.0)),
        *(f"exponential_crop(rate={rate})" for rate in (0.125, 0.25, 0.5, 1.0, 2.0)),
        "random_resized_crop(sampler='tf')",
    )
    return ml_collections.ConfigDict(
        {
            "configs": (f"configs/paper/recipe.py:{model}",),
            "axes": {"augment": {"name": distributions}, "seed": SEEDS},
        }
    )
