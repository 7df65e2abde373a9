"""The whole question in a few minutes: two small models, three trainings, two untrained networks.

    invariance-jax quickstart

Writes quickstart/report.html. A few minutes on two CPU cores; every trained model over 90 %
top-1 on held-out digits. More seeds: --config.axes.seed='(0, 1, 2)'.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Makes the sweep."""
    return ml_collections.ConfigDict(
        {
            "configs": ("configs/digits.py",),
            "axes": {
                "model": {"name": ("resnet8", "vit_mu8")},
                "seed": (0,),
                "augment": {"name": ("none", "translate", "random_resized_crop")},
            },
        }
    )
