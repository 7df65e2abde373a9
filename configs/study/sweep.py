r"""The study's runs: two networks, every training of the paper's claims, three seeds.

    launch/sweep.py configs/study/sweep.py --root=study/runs --jobs=2 \
        --override=data.data_dir=~/tensorflow_datasets

The argument is `ablation` or `half_of_classes`, of one network with `,MODEL`; or
`per_class,MODEL,SEARCH.nc` once a search is there. launch/study.py runs all of it. `ablation`: of
all images, and of a tenth of them, without augmentation and with six kinds; of a third of them
three; Augerino; 108 runs and six untrained networks. `half_of_classes`: 12 runs, to be measured on
all classes. A tenth of the images is shown 41 times, all of them four times, in as many steps.
Hardware: two CPU cores, two hours. What came out: docs/results.md.
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
    model, _, search = rest.partition(",")
    models, evaluate = (model,) if model else tuple(MODELS), ("trained", "untrained")
    if name == "ablation" and rest in ("", *MODELS):
        variants = ablation()
    elif name == "half_of_classes" and rest in ("", *MODELS):
        variants, evaluate = half_of_classes(), ()
    elif name == "per_class" and search and model in MODELS:
        variants, evaluate = per_class(search), ("trained",)
    else:
        raise UserError(
            f"the argument is {argument!r}; expected ablation, half_of_classes, these with ,MODEL, "
            f"or per_class,MODEL,SEARCH.nc with MODEL of: {', '.join(MODELS)}"
        )
    return ml_collections.ConfigDict(
        {
            "configs": tuple(f"configs/study/recipe.py:{each}" for each in models),
            "variants": variants,
            "axes": {"seed": SEEDS},
            "evaluate": evaluate,
        }
    )


def _of(names: tuple[str, ...], more: str = "") -> tuple[str, ...]:
    return tuple(f"augment.name={name} {more}".strip() for name in names)


def ablation() -> tuple[str, ...]:
    """Augmentations, shares of the images, and what is learned."""
    return (
        *_of(AUGMENTATIONS),
        *_of(AUGMENTATIONS, "data.fraction=0.1"),
        *_of(("none", "translate", STANDARD), "data.fraction=0.33"),
        *_of(("none",), shlex.quote(f"augment.learned={LEARNED}")),
    )


def half_of_classes() -> tuple[str, ...]:
    """Every second class, all its images."""
    half = f"'data.classes={CLASSES[::2]}'".replace(" ", "")
    return _of(("none", STANDARD), half)


def per_class(search: str) -> tuple[str, ...]:
    """Operations that a search found, beside the standard augmentation; of half of the classes."""
    searched = shlex.quote(f"augment.per_class=searched(file={search!r})")
    half = shlex.quote(f"augment.per_class=searched(file={search!r}, share=0.5)")
    return (f"augment.name={STANDARD} {searched}", f"augment.name=none {half}")
