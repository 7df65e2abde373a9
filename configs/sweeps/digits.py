"""Both small models on digits, without augmentation and with translations, two seeds each.

    launch/sweep.py configs/sweeps/digits.py --root=workdirs/digits --jobs=2

Eight runs, then workdirs/digits/report.html; with --fused the four runs of each model are trained
by one process. Not yet run as a whole.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Makes the sweep: every value of an axis with every value of the others."""
    return ml_collections.ConfigDict(
        {
            "configs": ("configs/digits.py",),
            "axes": {
                "model": {"name": ("resnet8", "vit_mu8")},
                "augment": {"name": ("none", "translate")},
                "seed": (0, 1),
            },
            # One order of images, so that both seeds can share an input.
            "overrides": ("data.shuffle_seed=0",),
        }
    )
