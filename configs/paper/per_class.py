r"""Do classes gain from operations that make up their own variation, and does invariance spread?

    invariance-jax search --config=configs/similarity_search.py:resnet18,resnet18.safetensors \
        --workdir=workdirs/search --config.data.data_dir=~/tensorflow_datasets
    launch/sweep.py configs/paper/per_class.py:SEARCH.nc --root=workdirs/per_class

Question: is accuracy, mean over classes, higher if every class is augmented by the rows that a
similarity search found for it, beside the standard augmentation or in its place; and if half of the
classes are left as they are, do they become as invariant as the others? The argument is the
search's result file, workdirs/search/similarity_search/NAME.nc. The paper's settings: the 25 rows
that boost most pairs, filtered, each with probability 1/n; then other places, probabilities and
rankings, rows ranked over all classes, and one row for one class. ROOT/report.html compares classes
with the standard run, as does

    invariance-jax compare --by_class ROOT/RUN ROOT/STANDARD ROOT/NONE

Data: ImageNet. Hardware: 33 runs as in augmentation.py. Expected: not yet run here. The twin at 64
pixels: configs/imagenet64/sweep.py:per_class,SEARCH.nc.
"""

import shlex

import ml_collections

SEEDS = (0, 3, 10)
SEARCHED = (
    "",
    "when='before'",
    "when='instead'",
    "probability='fixed'",
    "probability='softmax'",
    "ranking='percent_change'",
    "across_classes=True",
)


def get_config(search: str = "SEARCH.nc") -> ml_collections.ConfigDict:
    """Makes the sweep of one search."""

    def variant(per_class: str, name: str = "random_resized_crop_flip") -> str:
        return f"augment.name={name} {shlex.quote(f'augment.per_class={per_class}')}"

    def searched(options: str) -> str:
        return f"searched(file={search!r}{', ' if options else ''}{options})"

    return ml_collections.ConfigDict(
        {
            "configs": ("configs/paper/recipe.py:resnet18",),
            "axes": {"seed": SEEDS},
            "variants": (
                variant("", "none"),
                variant(""),
                *(variant(searched(each)) for each in SEARCHED),
                # Half of the classes, and nothing else: what do the others gain?
                variant(searched("share=0.5"), "none"),
                variant("named(rows='shear_x 5', classes='n01443537')"),
            ),
            "overrides": (
                "optimizer.learning_rate=0.1",
                "optimizer.weight_decay=1e-4",
            ),
        }
    )
