r"""The study's runs: two networks, every training of the paper's claims, three seeds.

    launch/sweep.py configs/study/sweep.py --root=study/runs --jobs=2 \
        --override=data.data_dir=~/tensorflow_datasets

The argument is `ablation`, of one network `ablation,MODEL`, or `per_class,MODEL,SEARCH.nc` once a
search is there (`make study` runs all of it). `ablation`: of all images, and of a tenth of them,
without augmentation and with six kinds; of a third of them and of half of the classes two or three;
Augerino; 120 runs and six untrained networks. A tenth of the images is shown 41 times, all of them
four times, in as many steps. Hardware: two CPU cores, two hours. What came out: docs/results.md.
"""

import shlex

import ml_collections

from invariance_jax.configs.study.recipe import CLASSES, MODELS
from invariance_jax.errors import UserError

SEEDS = (0, 1, 2)
STANDARD = "random_resized_crop_flip"
AUGMENTATIONS = (
    *("none", "flip", "translate", "random_size_center_crop"),
    *("random_resized_crop", STANDARD, "translate_scale"),
)
LEARNED = "augerino(generators=('translate_x', 'translate_y', 'scale'))"


def get_config(argument: str = "ablation") -> ml_collections.ConfigDict:
    """Makes the sweep."""
    name, _, rest = argument.partition(",")
    if name == "ablation" and rest in ("", *MODELS):
        models, variants = (rest,) if rest else tuple(MODELS), ablation()
    elif name == "per_class" and rest.startswith(tuple(f"{each}," for each in MODELS)):
        model, _, search = rest.partition(",")
        models, variants = (model,), per_class(search)
    else:
        raise UserError(
            f"the argument is {argument!r}; expected ablation, ablation,MODEL or "
            f"per_class,MODEL,SEARCH.nc with MODEL of: {', '.join(MODELS)}"
        )
    return ml_collections.ConfigDict(
        {
            "configs": tuple(f"configs/study/recipe.py:{each}" for each in models),
            "variants": variants,
            "axes": {"seed": SEEDS},
        }
    )


def ablation() -> tuple[str, ...]:
    """Augmentations, shares of the images, half of the classes, and what is learned."""

    def of(names: tuple[str, ...], more: str = "") -> tuple[str, ...]:
        return tuple(f"augment.name={name} {more}".strip() for name in names)

    half = f"'data.classes={CLASSES[::2]}'".replace(" ", "")
    return (
        *of(AUGMENTATIONS),
        *of(AUGMENTATIONS, "data.fraction=0.1"),
        *of(("none", "translate", STANDARD), "data.fraction=0.33"),
        *of(("none", STANDARD), half),
        *of(("none",), shlex.quote(f"augment.learned={LEARNED}")),
    )


def per_class(search: str) -> tuple[str, ...]:
    """Operations that a search found, beside the standard augmentation; of half of the classes."""
    searched = shlex.quote(f"augment.per_class=searched(file={search!r})")
    half = shlex.quote(f"augment.per_class=searched(file={search!r}, share=0.5)")
    return (f"augment.name={STANDARD} {searched}", f"augment.name=none {half}")
