"""What tells networks apart: the fields in which their configs differ, in short names."""

import pathlib

import pytest

from invariance_jax.config import ExperimentConfig, flatten
from invariance_jax.report import rows

PATH = pathlib.Path("results/a.nc")


def network(*, steps=500, parameters="", path=PATH, **changes):
    config = ExperimentConfig().with_values(
        model={"name": "resnet8"}, augment={"name": "none"}, train={"steps": 500}
    )
    values = flatten(config.with_values(**changes).to_dict())
    return rows.network(values, steps=steps, parameters=parameters, path=path)


def labels(*networks):
    found = rows.tell_apart(networks)
    return [found[each.row].label for each in networks]


def parts(one, other):
    found = rows.tell_apart([one, other])
    return rows.differing_parts(found[one.row], found[other.row])


@pytest.mark.parametrize(
    ("changes", "plain", "changed"),
    [
        ({"augment": {"name": "translate(t=0.1)"}}, "none", "translate"),
        ({"augment": {"policies": ("rand_augment(n=2, m=9)",)}}, "none", "none + rand_augment"),
        ({"augment": {"mixing": ("mixup(alpha=0.2)",)}}, "none", "none + mixup"),
        ({"data": {"fraction": 0.25}}, "none", "none, 25% of data"),
        ({"data": {"train_split": "train[:9]"}}, "none, train", "none, train[:9]"),
        ({"data": {"classes": (1, "cat")}}, "none", "none, classes 1, cat"),
        ({"data": {"classes": tuple(range(9))}}, "none", "none, 9 classes"),
        ({"data": {"image_size": 64}}, "none, 224 px", "none, 64 px"),
        ({"optimizer": {"learning_rate": 0.02}}, "none, lr 0.1", "none, lr 0.02"),
        ({"optimizer": {"name": "adamw(b2=0.9)"}}, "none, sgd", "none, adamw"),
        (
            {"optimizer": {"name": "sgd(momentum=0.8)"}},
            "none, sgd(momentum=0.9)",
            "none, sgd(momentum=0.8)",
        ),
        ({"optimizer": {"warmup_steps": 5}}, "none, warmup steps 0", "none, warmup steps 5"),
        ({"train": {"steps": 900}}, "none, 500 steps", "none, 500 of 900 steps"),
        ({"train": {"batch_size": 8}}, "none, batch 256", "none, batch 8"),
        (
            {
                "train": {"batch_size": 8},
                "optimizer": {"learning_rate": 1e-5},
                "data": {"fraction": 0.5},
            },
            "none, lr 0.1, batch 256",
            "none, 50% of data, lr 1e-05, batch 8",
        ),
        ({"model": {"weights": "hub/a.npz"}}, "none", "none, from a.npz"),
        ({"model": {"dtype": "bfloat16"}}, "none, float32", "none, bfloat16"),
    ],
)
def test_every_field_that_changes_the_training_tells_apart(changes, plain, changed):
    assert labels(network(), network(**changes)) == [f"resnet8, {plain}", f"resnet8, {changed}"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 3},
        {"mesh": {"data": 2}},
        {"train": {"log_every": 7}},
        {"data": {"validation_split": "test"}},
        {"eval": {"split": "test"}},
        {"data": {"subset_seed": 5}},  # of all images
        {"augment": {"name": "  none"}},
    ],
)
def test_what_changes_no_training_does_not(changes):
    assert network().row == network(**changes).row


def test_steps_that_were_taken_count_and_not_those_that_were_planned():
    assert labels(
        network(steps=500),
        network(steps=500, train={"steps": 900}),
        network(steps=900, train={"steps": 900}),
    ) == [
        "resnet8, none, 500 steps",
        "resnet8, none, 500 of 900 steps",
        "resnet8, none, 900 steps",
    ]


def test_training_fields_do_not_count_before_training():
    other = {
        "optimizer": {"learning_rate": 0.5},
        "augment": {"name": "flip"},
        "data": {"fraction": 0.5},
    }
    assert network(steps=0).row == network(steps=0, **other).row
    assert labels(network(steps=0), network(**other)) == ["resnet8, untrained", "resnet8, flip"]
    assert network(steps=0).row != network(steps=0, data={"image_size": 64}).row
    assert labels(network(steps=0), network(steps=0, data={"image_size": 64})) == [
        "resnet8, untrained, 224 px",
        "resnet8, untrained, 64 px",
    ]


def test_names_are_as_short_as_they_can_be_without_being_ambiguous():
    one, two, three = (
        {"name": name}
        for name in (
            "resnet18(stem='cifar', stem_stride=2)",
            "resnet18(stem='cifar')",
            "vit_mu8(depth=3)",
        )
    )
    assert labels(network(model=one), network(model=three)) == ["resnet18, none", "vit_mu8, none"]
    assert labels(network(model=one), network(model=two), network(model=three)) == [
        "resnet18(stem_stride=2), none",
        "resnet18, none",
        "vit_mu8, none",
    ]
    augmentations = [{"name": f"translate(t={t})"} for t in (0.1, 0.2)]
    assert labels(*(network(augment=each) for each in augmentations)) == [
        "resnet8, translate(t=0.1)",
        "resnet8, translate(t=0.2)",
    ]


def test_one_name_in_two_spellings_is_one_network():
    assert (
        network(model={"name": "resnet18(stem='cifar')"}).row
        == network(model={"name": 'resnet18( stem = "cifar" )'}).row
    )


def test_what_goes_with_the_architecture_is_not_in_the_label_but_in_the_fields():
    vit = {"model": {"name": "vit_mu8"}, "optimizer": {"learning_rate": 0.005}}
    resnet, other = network(), network(**vit)
    found = rows.tell_apart([resnet, other])
    assert [row.label for row in found.values()] == ["resnet8, none", "vit_mu8, none"]
    assert found[other.row].fields == {"model.name": "vit_mu8", "optimizer.learning_rate": 0.005}
    # Of data a label always says which.
    assert labels(resnet, network(model={"name": "vit_mu8"}, data={"fraction": 0.5})) == [
        "resnet8, none",
        "vit_mu8, none, 50% of data",
    ]


def test_imported_weights_are_told_apart_by_path_then_by_content():
    def imported(path, parameters, **changes):
        return network(steps=0, model={"weights": path}, parameters=parameters, **changes)

    one, two = imported("hub/a1/model.npz", "1111"), imported("hub/a2/model.npz", "2222")
    assert labels(one) == ["resnet8, weights model.npz"]
    assert labels(one, two) == ["resnet8, weights a1/model.npz", "resnet8, weights a2/model.npz"]
    bare = imported("model.npz", "4444")
    assert labels(one, bare) == ["resnet8, weights a1/model.npz", "resnet8, weights model.npz"]
    # A copy is the same network, and a seed draws nothing of it.
    assert imported("copy/model.npz", "1111", seed=4).key == one.key
    replaced = imported("hub/a1/model.npz", "3333333333")
    assert labels(one, replaced) == [
        "resnet8, weights model.npz (1111)",
        "resnet8, weights model.npz (33333333)",
    ]


def test_networks_of_which_little_is_known_are_told_apart_by_their_file():
    known = network(path=pathlib.Path("a.nc"))
    values = {
        "seed": 0,
        "model.name": "resnet8",
        "train.steps": 500,
        "augment.name": "none",
        "augment.policies": (),
        "augment.mixing": (),
    }
    unknown = rows.network(values, steps=500, parameters="", path=pathlib.Path("b/accuracy.csv"))
    assert labels(known, unknown) == ["resnet8, none (a.nc)", "resnet8, none (b/accuracy.csv)"]


def test_untrained_networks_come_first_and_unknown_augmentations_last():
    names = ["translate", "none", "flip"]
    trained = [network(augment={"name": name}) for name in names]
    fewer = network(data={"fraction": 0.5})
    imported = network(steps=0, model={"weights": "a.npz"})
    unknown = network(augment={"name": "mystery"})
    every = [unknown, imported, *trained, fewer, network(steps=0), network(model={"name": "a"})]
    found = sorted(rows.tell_apart(every).values(), key=lambda row: row.sort_key)
    assert [row.label for row in found] == [
        "a, none",
        "resnet8, untrained",
        "resnet8, none",
        "resnet8, none, 50% of data",
        "resnet8, flip",
        "resnet8, translate",
        "resnet8, weights a.npz",
        "resnet8, mystery",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"name": "vit_mu8"}}, {"architecture"}),
        ({"augment": {"name": "flip"}}, {"augmentation"}),
        ({"augment": {"mixing": ("mixup",)}}, {"augmentation"}),
        ({"data": {"fraction": 0.5}}, {"data"}),
        ({"data": {"fraction": 0.5, "subset_seed": 3}}, {"data"}),
        ({"data": {"train_split": "validation"}}, {"data"}),
        ({"data": {"classes": (1,)}}, {"data"}),
        ({"optimizer": {"learning_rate": 0.5}}, {"recipe"}),
        ({"train": {"steps": 800}}, {"recipe"}),
        ({"data": {"image_size": 32}}, {"recipe"}),
        ({"data": {"fraction": 0.5}, "augment": {"name": "flip"}}, {"data", "augmentation"}),
    ],
)
def test_parts_in_which_two_networks_differ(changes, expected):
    assert parts(network(), network(**changes)) == expected


def test_another_draw_of_a_share_is_a_part_of_its_own():
    one, other = (network(data={"fraction": 0.5, "subset_seed": seed}) for seed in (0, 1))
    assert parts(one, other) == {"subset"}
    assert labels(one, other) == ["resnet8, none, subset 0", "resnet8, none, subset 1"]


def test_the_untrained_network_of_another_input_is_not_ones_own():
    trained, other = network(), network(data={"image_size": 64})
    untrained = network(steps=0, optimizer={"learning_rate": 0.9})
    found = rows.tell_apart([trained, other, untrained])
    assert rows.untrained_of(found.values()) == {found[trained.row]: found[untrained.row]}


def test_classes_that_hold_all_others_go_without_saying():
    def of(*classes):
        return labels(*(network(data={"classes": each}) for each in classes))

    some = tuple(range(20))
    half, three = "resnet8, none, 10 classes", "resnet8, none, classes 0, 1, 2"
    assert of(some, some[::2], some[:3]) == ["resnet8, none", half, three]
    assert of(some[::2], (5, 7)) == [half, "resnet8, none, classes 5, 7"]


def test_a_search_of_each_architecture_is_told_by_the_architecture():
    found = labels(
        *(
            network(
                model={"name": name}, augment={"per_class": f"searched(file='{name}/a.nc'{more})"}
            )
            for name in ("resnet8", "vit_mu8")
            for more in ("", ", share=0.5")
        )
    )
    assert found == [
        f"{name}, none + searched{more}"
        for name in ("resnet8", "vit_mu8")
        for more in ("", "(share=0.5)")
    ]


def test_files_are_called_by_what_tells_them_apart():
    found = labels(
        *(
            network(augment={"per_class": f"searched(file='runs/{file}', share=0.5)"})
            for file in ("one/search/a.nc", "two/search/a.nc", "two/search/b.nc")
        ),
        network(),
    )
    assert found == [
        "resnet8, none + searched(file='one/search/a.nc')",
        "resnet8, none + searched(file='two/search/a.nc')",
        "resnet8, none + searched(file='b.nc')",
        "resnet8, none",
    ]
