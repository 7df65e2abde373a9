"""Tables for the terminal."""

from invariance_jax.report import load, tables


def test_accuracy_table(study):
    assert tables.accuracy_text(load.read([study.path])).splitlines() == [
        "model    training   seeds  steps  top-1 %",
        "resnet8  untrained      1      0     10.0",
        "resnet8  none           1    500     80.0",
        "resnet8  translate      1    500     90.0",
        "vit_mu8  untrained      1      0     10.0",
        "vit_mu8  none           1    500     70.0",
        "vit_mu8  translate      1    500     85.0",
    ]


def test_invariance_table(folder):
    folder.add("resnet8", "none", steps=0, level=0.0, noise=0.0)
    folder.add("resnet8", "none", level=[0.1] * 2 + [0.8] * 2 + [0.3] + [0.6] * 2 + [0.9] * 6)
    assert tables.invariance_text(load.read([folder.path])).splitlines() == [
        "model    training   translate  scale  rotate  shear  appearance",
        "resnet8  untrained       0.00   0.00    0.00   0.00        0.00",
        "resnet8  none            0.80   0.60    0.30   0.10        0.90",
    ]


def test_several_seeds_show_their_standard_error(folder):
    for seed, top1 in enumerate((0.8, 0.9)):
        folder.add("resnet8", "none", seed=seed, level=top1)
    text = tables.invariance_text(load.read([folder.path]))
    assert "0.85 ±0.05" in text.splitlines()[1]


def test_long_names_stay_within_the_width_and_apart(folder):
    names = [f"random_resized_crop(scale=(0.1, 0.9), ratio=(0.5, {x}))" for x in (1.5, 2.5)]
    for name in names:
        for seed in (0, 1):
            folder.add("modified_resnet18(stem='cifar')", name, seed=seed, level=0.1 * seed)
    header, first, second = tables.invariance_text(load.read([folder.path])).splitlines()
    assert {len(line) for line in (header, first, second)} == {100}
    assert first.split("  ")[1] != second.split("  ")[1]


def test_a_small_negative_number_is_not_written_as_minus_zero():
    assert tables.number(-0.001, float("nan"), "{:z.2f}") == "0.00"
