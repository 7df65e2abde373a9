"""Both small models on digits, without augmentation and with translations, two seeds each.

    launch/sweep.py configs/sweeps/digits.py --root=workdirs/digits --jobs=2

Eight runs, then workdirs/digits/report.html. Not yet run as a whole.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Makes the sweep."""
    sweep = ml_collections.ConfigDict()
    sweep.configs = ("configs/digits.py:resnet8", "configs/digits.py:vit_mu8")
    # Fields as in flags, without `--config.`; several fields of one run stand in one string.
    sweep.overrides = ("augment.name=none", "augment.name=translate")
    sweep.seeds = (0, 1)
    sweep.evaluate = ("trained", "untrained")
    return sweep
