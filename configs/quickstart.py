"""The whole question in a few minutes: two small models, three trainings, two untrained networks.

    invariance-jax quickstart

Writes quickstart/report.html. A few minutes on two CPU cores; every trained model over 90 %
top-1 on held-out digits.
"""

import ml_collections

from invariance_jax.configs import digits


def get_config() -> ml_collections.ConfigDict:
    """Makes the config of the grid."""
    config = ml_collections.ConfigDict()
    config.experiment = digits.get_config()
    config.models = ("resnet8", "vit_mu8")
    config.augmentations = ("none", "translate", "random_resized_crop")
    config.seeds = (0,)
    return config
