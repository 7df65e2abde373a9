"""WordNet: NLTK's similarities, the hierarchy that comes with the package, class specificity."""

import math
import pathlib
import shutil

import numpy as np
import pytest
import xarray as xr

from invariance_jax.errors import UserError
from invariance_jax.factors import rankings, wordnet
from invariance_jax.factors.wordnet import Hierarchy

WORDNET = pathlib.Path("/usr/share/wordnet")


@pytest.fixture(scope="module")
def tree():
    return Hierarchy.of_imagenet()


def test_the_closure_is_that_of_the_thousand_classes(tree):
    wanted, closure = set(tree.first_sense), set()
    assert len(wanted) == 1000
    while wanted:
        closure |= wanted
        wanted = {above for each in wanted for above in tree.above[each]} - closure
    assert len(closure) == 1860
    assert sum(len(tree.above[each]) > 1 for each in tree.first_sense) == 38
    assert sum(first != each for each, first in tree.first_sense.items()) == 209
    # The bird is not the machine, and neither is the writer.
    assert tree.names[tree.first_sense["n02012849"]] == "crane.n.01"
    assert tree.names["n02012849"] == "crane.n.05" and tree.names["n03126707"] == "crane.n.04"
    assert list(wordnet.Hierarchy.of_imagenet().first_sense)[:1] == ["n01440764"]


def test_dog_and_cat(tree):
    dog, cat = "n02084071", "n02121620"
    assert tree.names[dog] == "dog.n.01" and tree.names[cat] == "cat.n.01"
    # Both are two below carnivore, the 13th node from the root by the longest way.
    assert tree.similarity(dog, cat, "wup") == 2 * 12 / (2 + 2 + 2 * 12)
    assert tree.similarity(dog, cat, "path") == 1 / 5
    assert round(tree.similarity(dog, cat, "lch"), 3) == 2.028
    assert tree.similarity(dog, dog, "path") == 1
    assert tree.similarity(dog, dog, "lch") == pytest.approx(math.log(38))
    # A short way, by way of domestic animals, makes a dog less deep than canines are.
    assert tree.similarity(dog, dog, "wup") == 2 * 13 / (1 + 1 + 2 * 13)
    assert tree.similarity("n01440764", "n01440764", "wup") == 1


def test_several_ways_up():
    # b is one or two below a, x below b; y is below a and c.
    above = {"root": [], "a": ["root"], "c": ["root"], "m": ["a"], "b": ["m", "a"], "x": ["b"]}
    above |= {"y": ["a", "c"], "s": ["a", "m"], "t": ["m", "c"]}
    tree = Hierarchy(above=above, names={name: f"{name}.n.01" for name in above})
    assert tree.places["b"].ways == {"b": 0, "m": 1, "a": 1, "root": 2}
    assert (tree.places["b"].least_depth, tree.places["b"].most_depth) == (2, 3)
    # a: depth 1 by any way, so D = 2; x is 2 below it, y 1.
    assert tree.similarity("x", "y", "wup") == 4 / (2 + 1 + 4)
    assert tree.similarity("x", "y", "path") == 1 / 4
    assert tree.similarity("x", "y", "lch") == -math.log(4 / 38)
    # b is least 2 and at most 3 deep: the least decides which ancestor, the most how deep it is.
    assert tree.similarity("x", "b", "wup") == 8 / (1 + 0 + 8)
    # Of a and c, equally deep, the first by name.
    assert tree.similarity("y", "t", "wup") == 4 / (1 + 2 + 4)
    # The way to the ancestor may go over another one: u is 4 below z, but 1 below the root.
    above |= {"z": ["a"], "u1": ["z"], "u2": ["u1"], "u3": ["u2"], "u": ["u3", "root"]}
    tree = Hierarchy(above=above | {"v": ["z"]}, names=dict.fromkeys([*above, "v"], ""))
    assert tree.places["u"].ways["z"] == 4 and tree.distance("u", "z") == 1 + 2
    assert tree.similarity("u", "v", "wup") == 6 / (3 + 1 + 6)
    with pytest.raises(UserError, match="did you mean 'wup'"):
        tree.similarity("x", "y", "wu")


@pytest.fixture
def nltk(tmp_path, monkeypatch):
    """NLTK's reader, of Debian's nouns."""
    reader = pytest.importorskip("nltk.corpus.reader.wordnet").WordNetCorpusReader
    import nltk.data

    if not (WORDNET / "data.noun").is_file():
        pytest.skip("Debian's wordnet-base is not installed")
    folder = tmp_path / "corpora/wordnet"
    folder.mkdir(parents=True)
    for name in reader._FILES:  # those of other words stay empty
        (folder / name).touch()
    for name in ("data.noun", "index.noun"):
        shutil.copy(WORDNET / name, folder)
    (folder / "data.adj").write_text("  1 WordNet 3.0 Copyright\n")
    (folder / "lexnames").write_text("".join(f"{i:02} name{i} 1\n" for i in range(45)))
    # NLTK reads no folder that its list does not have.
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    return reader(str(folder), None)


@pytest.mark.filterwarnings("ignore")
def test_equals_nltk_on_random_pairs(tree, nltk):
    draws, names = np.random.default_rng(0), sorted(tree.first_sense)
    for _ in range(200):
        first, second = draws.choice(names, 2, replace=False)
        ours = [tree.similarity(first, second, kind) for kind in wordnet.SIMILARITIES]
        a, b = (nltk.synset_from_pos_and_offset("n", int(each[1:])) for each in (first, second))
        assert tree.names[first] == a.name()
        theirs = [a.wup_similarity(b), a.path_similarity(b), a.lch_similarity(b)]
        assert ours == pytest.approx(theirs, abs=1e-12), (first, second)
    for each in draws.choice(names, 50):
        word = nltk.synset_from_pos_and_offset("n", int(tree.first_sense[each][1:])).name()
        assert word == tree.names[tree.first_sense[each]]


def statistics(change, names, wnids=("n01440764", "n01443537", "n02012849")):
    """Percent changes [class, row] of rows, each of the operation of its name."""
    return xr.Dataset(
        {
            "mean_percent_change": (("class", "row"), np.asarray(change, float)),
            "proportion_boosted": (("class", "row"), np.zeros_like(change, float)),
        },
        {
            "wnid": ("class", list(wnids)[: len(change)]),
            "row": [f"{name} {i}" for i, name in enumerate(names)],
            "operation": ("row", list(names)),
        },
    )


def test_specificity_compares_rankings():
    # 30 rows of 6 operations: the first class has them in order, the second has a and b
    # exchanged, the third runs backwards.
    names = np.repeat(list("abcdef"), 5)
    one, two = -np.arange(30.0), -np.arange(30.0)
    two[:5], two[5:10] = one[5:10], one[:5]
    three = -one
    found = wordnet.specificity(statistics([one, two, three], names), count=60)
    assert found.sizes == {"class_pair": 60}
    tree = Hierarchy.of_imagenet()
    ids = ("n01440764", "n01443537", "n02012849")
    # Rows of c to f are 20: among the first 25 are a to e, or f to b; among 5 one operation.
    iou_25 = {(0, 1): 1.0, (0, 2): 4 / 6, (1, 2): 4 / 6}
    backwards = 1 - 6 * 70 / 210
    exchanged = 1 - 6 * ((1 - 5) ** 2 + (0 - 4) ** 2 + 1 + 1 + 9 + 25) / 210
    spearman = {(0, 1): 1 - 6 * 2 / 210, (0, 2): backwards, (1, 2): exchanged}
    seen = set()
    for pair in range(60):
        each = found.isel(class_pair=pair)
        key = tuple(sorted((int(each["first"]), int(each["second"]))))
        seen.add(key)
        assert each["iou_25"] == pytest.approx(iou_25[key])
        assert each["iou_5"] == 0
        assert each["spearman"] == pytest.approx(spearman[key]), key
        for kind in wordnet.SIMILARITIES:
            assert each[kind] == tree.similarity(ids[key[0]], ids[key[1]], kind)
    assert seen == set(iou_25)


def test_pairs_are_of_different_classes_and_seeded():
    first, second = wordnet.pairs(5, 10_000, seed=3)
    assert (first != second).all()
    assert (
        np.bincount(first * 5 + second, minlength=25).reshape(5, 5)[~np.eye(5, dtype=bool)].min()
        > 400
    )
    np.testing.assert_array_equal([first, second], wordnet.pairs(5, 10_000, seed=3))
    assert (first != wordnet.pairs(5, 10_000, seed=4)[0]).any()
    with pytest.raises(UserError, match="has 1 class"):
        wordnet.pairs(1, 5, seed=0)


def test_senses():
    table = statistics(np.zeros((3, 2)), "ab")
    assert wordnet.synsets(table) == ["n01440764", "n01443537", "n02012849"]
    assert wordnet.synsets(table, "first")[2] == "n10914447"
    with pytest.raises(UserError, match="unknown senses 'second'"):
        wordnet.synsets(table, "second")
    digits = table.drop_vars("wnid").assign_coords(class_name=("class", ["n01440764", "7", "8"]))
    with pytest.raises(UserError, match=r"2 of 3 classes have no WordNet id, the first is '7'"):
        wordnet.synsets(digits)


def test_similar_minus_different():
    found = xr.Dataset(
        {
            "wup": ("class_pair", [0.8, 0.9, 0.1, 0.2, 0.5]),
            "iou_5": ("class_pair", [0.6, 1.0, 0.2, 0.4, 9.0]),
            "first": ("class_pair", [0, 1, 2, 3, 0]),
            "second": ("class_pair", [1, 2, 3, 0, 2]),
        },
        attrs={"classes": 4},
    )
    difference, low, high = wordnet.similar_minus_different(found, "iou_5", draws=500)
    assert difference == pytest.approx(0.8 - 0.3)
    # Draws that have class 1 and not 2 see only .6, those with 3 and 0 and not 2 only .4.
    assert low == pytest.approx(0.2) and high == pytest.approx(0.8)
    weights = rankings.resampled(4, 500, 0)
    means = []
    for weight in weights:
        pair = [weight[a] * weight[b] for a, b in ((0, 1), (1, 2), (2, 3), (3, 0))]
        if pair[0] + pair[1] and pair[2] + pair[3]:
            near = (0.6 * pair[0] + pair[1]) / (pair[0] + pair[1])
            means.append(near - (0.2 * pair[2] + 0.4 * pair[3]) / (pair[2] + pair[3]))
    assert (low, high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))))
    alike = found.assign(wup=found["wup"] * 0 + 0.5)
    assert np.isnan(wordnet.similar_minus_different(alike, "iou_5")).all()
