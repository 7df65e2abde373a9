"""Tables for the page and the terminal."""

from invariance_jax.report import load, summaries, tables


def _groups(folder):
    return tables.invariance(summaries.grouped_invariance(load.read([folder.path]).runs))


def test_accuracy_table(study):
    assert tables.accuracy(load.read([study.path]).accuracy).to_text().splitlines() == [
        "model    training   seeds  steps  seconds  top-1 %  top-5 %",
        "resnet8  untrained      1      0        0     10.0     50.0",
        "resnet8  none           1    500       10     80.0    100.0",
        "resnet8  translate      1    500       10     90.0    100.0",
        "vit_mu8  untrained      1      0        0     10.0     50.0",
        "vit_mu8  none           1    500       10     70.0    100.0",
        "vit_mu8  translate      1    500       10     80.0    100.0",
    ]


def test_top5_is_left_out_where_it_is_not_known(folder):
    folder.add_table(("resnet8", "none", 0, 0.5, 1500, 1.0))
    table = tables.accuracy(load.read([folder.path]).accuracy)
    assert table.rows == [("resnet8", "none", "1", "1,500", "1", "50.0")]
    folder.add_accuracy("resnet8", "flip", 0.25, top5=0.75)
    table = tables.accuracy(load.read([folder.path]).accuracy)
    assert [row[-2:] for row in table.rows] == [("50.0", "-"), ("25.0", "75.0")]


def test_invariance_table(folder):
    folder.add("resnet8", "none", steps=0, level=0.0, noise=0.0)
    folder.add("resnet8", "none", level=[0.1] * 2 + [0.8] * 2 + [0.3] + [0.6] * 2 + [0.9] * 6)
    assert _groups(folder).to_text().splitlines() == [
        "model    training   seeds  translate  scale  rotate  shear  appearance",
        "resnet8  untrained      1       0.00   0.00    0.00   0.00        0.00",
        "resnet8  none           1       0.80   0.60    0.30   0.10        0.90",
    ]


def test_several_seeds_show_their_standard_error(folder):
    for seed, top1 in enumerate((0.8, 0.9)):
        folder.add("resnet8", "none", seed=seed, level=top1)
    assert "0.85 ±0.05" in _groups(folder).to_text().splitlines()[1]


def test_long_names_stay_within_the_width_and_apart(folder):
    names = [f"random_resized_crop(scale=(0.1, 0.9), ratio=(0.5, {x}))" for x in (1.5, 2.5)]
    for name in names:
        for seed in (0, 1):
            folder.add("modified_resnet18", name, seed=seed, level=0.1 * seed)
    header, first, second = _groups(folder).to_text().splitlines()
    assert {len(line) for line in (header, first, second)} == {100}
    assert first.split("  ")[1] != second.split("  ")[1]


def test_a_small_negative_number_is_not_written_as_minus_zero(folder):
    folder.add("resnet8", "none", level=-0.001, noise=0.0)
    assert _groups(folder).rows == [("resnet8", "none", "1", *["0.00"] * 5)]


def test_every_field_that_differs_is_written_in_full(folder):
    folder.add("resnet18(stem='cifar')", "translate(t=0.1)")
    folder.add("vit_mu8", "none", optimizer={"learning_rate": 0.5}, data={"classes": ()})
    table = tables.differences(load.read([folder.path]))
    assert list(table.columns) == [
        "model", "training", "model.name", "optimizer.learning_rate", "augment",
    ]  # fmt: skip
    assert table.rows == [
        ("resnet18", "translate", "resnet18(stem='cifar')", "0.1", "translate(t=0.1)"),
        ("vit_mu8", "none", "vit_mu8", "0.5", "none"),
    ]


def test_effects_are_tabled(study):
    table = tables.of_effects(load.read([study.path]).runs)
    assert (
        "training",
        "resnet8, none",
        "resnet8, untrained",
        "+0.40",
        "0.40",
        "13 of 13",
    ) in table.rows
    assert len(table.rows) == 3 + 2 + 2
