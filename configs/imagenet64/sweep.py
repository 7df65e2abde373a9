"""The paper's sweeps at 64 pixels, with the short recipe and two seeds.

    launch/sweep.py configs/imagenet64/sweep.py:augmentation --root=workdirs/augmentation64 --jobs=1

The argument is NAME or NAME,MODEL: augmentation, scale_distribution, translation_size,
modified_resnet, augerino, test_time_scale; resnet18, resnet50, vit_s16; or per_class,SEARCH.nc, the
result file of a search. What each asks stands in configs/paper/NAME.py. Hardware: any. Expected:
not yet run here.
"""

import importlib

import ml_collections

from invariance_jax.configs.imagenet64.recipe import at_64_pixels
from invariance_jax.errors import UserError

NAMES = (
    *("augmentation", "scale_distribution", "translation_size"),
    *("modified_resnet", "augerino", "test_time_scale", "per_class"),
)
SEEDS = (0, 1)


def get_config(argument: str = "augmentation") -> ml_collections.ConfigDict:
    """Makes the sweep."""
    name, _, model = argument.partition(",")
    if name not in NAMES:
        raise UserError(f"the argument is {argument!r}; expected one of: {', '.join(NAMES)}")
    paper = importlib.import_module(f"invariance_jax.configs.paper.{name}")
    sweep = paper.get_config(*filter(None, (model,)))
    (recipe,) = sweep.configs
    sweep.configs = (recipe.replace("configs/paper/", "configs/imagenet64/"),)
    sweep.axes.seed = SEEDS
    if "model" in sweep.axes:
        sweep.axes.model.name = tuple(map(at_64_pixels, sweep.axes.model.name))
    return sweep
