r"""What does an augmentation learn that is free to choose its strength?

    launch/sweep.py configs/paper/augerino.py --root=workdirs/augerino

Question: do widths of translation and scale that are learned end near those of
`random_resized_crop`, and is the network as good? ResNet-18 after `none`, every form: sequential
(the paper's), without regulariser, fixed, with floors, joint, of six generators, with widths for
each class, four copies in training. From a network that was trained with `none` widths learn as
fast as the network:

    invariance-jax export --workdir=workdirs/none --output=none.safetensors
    invariance-jax train --config=configs/paper/recipe.py:resnet18,none --workdir=workdirs/gone_on \
        --config.model.weights=none.safetensors \
        --config.augment.learned='augerino(learning_rate_factor=1.0)'

A run with a fixed augmentation is compared fairly if it is judged by as many copies:

    invariance-jax evaluate --workdir=workdirs/crop \
        --config.eval.measurements="('averaged_accuracy(copies=4)',)"

Data: ImageNet. Hardware: 24 runs as in augmentation.py, four times as long with four copies.
Expected: not yet run here. The twin at 64 pixels: configs/imagenet64/sweep.py:augerino.
"""

import ml_collections

from invariance_jax.configs.paper.augmentation import SEEDS

SIX = ("translate_x", "translate_y", "rotate", "scale", "stretch", "shear")
LEARNED = (
    "augerino",
    "augerino(regularization=0.0)",
    "augerino(fixed=True)",
    "augerino(floors=1.0)",
    "augerino(sequential=False)",
    f"augerino(generators={SIX})",
    "augerino(per_class=True)",
    "augerino(train_copies=4)",
)


def get_config(model: str = "resnet18") -> ml_collections.ConfigDict:
    """Makes the sweep of one model."""
    return ml_collections.ConfigDict(
        {
            "configs": (f"configs/paper/recipe.py:{model},none",),
            "axes": {"augment": {"learned": LEARNED}, "seed": SEEDS},
        }
    )
