r"""How far must images be translated?

    launch/sweep.py configs/paper/translation_size.py:resnet18 --root=workdirs/translations

Question: how do accuracy and invariance grow with t, the largest translation as a fraction of the
side (the paper's table has .3)? The argument is the model. Data: ImageNet. Hardware: 15 runs as in
augmentation.py. Expected: not yet run here. The twin at 64 pixels:
configs/imagenet64/sweep.py:translation_size.
"""

import ml_collections

from invariance_jax.configs.paper.augmentation import SEEDS


def get_config(model: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the sweep of one model."""
    sizes = tuple(f"translate(t={t})" for t in (0.1, 0.2, 0.3, 0.4, 0.5))
    return ml_collections.ConfigDict(
        {
            "configs": (f"configs/paper/recipe.py:{model}",),
            "axes": {"augment": {"name": sizes}, "seed": SEEDS},
        }
    )
