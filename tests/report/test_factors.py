"""Factors of variation: tables, figures, the page's section, `factors` as a command."""

import csv

import numpy as np
import pytest
import xarray as xr

from invariance_jax import augment, data, devices, models
from invariance_jax.__main__ import main
from invariance_jax.config import ExperimentConfig
from invariance_jax.errors import UserError
from invariance_jax.evaluation import results
from invariance_jax.evaluation.driver import Driver
from invariance_jax.evaluation.measurement import MAIN
from invariance_jax.factors import alignment, foreground, rankings, rows, wordnet
from invariance_jax.factors.search import SimilaritySearch
from invariance_jax.report import factor_charts as charts
from invariance_jax.report import factor_section, factors, load, page, vega
from invariance_jax.transforms import TRANSFORMS

ROWS = ("rotate 3", "rotate 4", "invert 3", "invert 4", "rescale 4", "solarize 5", "contrast 3")
ROWS += ("shear_x 4", "color 0")
WNIDS = ("n01440764", "n01443537", "n02012849")
CLASSES = tuple(map(str, range(10)))


def search_of(attrs, *, class_names=CLASSES, classes=3, pairs=4, seed=0, names=None):
    """A search whose rows change the similarity of all pairs by what is drawn for the class."""
    table = [rows.Row.parse(each) for each in ROWS]
    draws = np.random.default_rng(seed)
    change = draws.normal(0, 0.1, (classes, len(ROWS))).repeat(pairs, 0)
    change += draws.normal(0, 0.05, change.shape)
    change[:, 3], change[:, 8] = change[:, 2], 0
    label = np.repeat(np.arange(classes), pairs).astype(np.int32)
    names = names or [f"image{i}" for i in range(2 * len(label))]
    return xr.Dataset(
        {
            "similarity": ("pair", np.full(len(label), 0.5, np.float32)),
            "change": (("pair", "row"), change.astype(np.float32)),
        },
        {
            "label": ("pair", label),
            "class_name": ("pair", [class_names[each] for each in label]),
            "image1": ("pair", names[0::2]),
            "image2": ("pair", names[1::2]),
            **rows.coordinates(table),
        },
        {**attrs, "split": "train", "features": "embedding", "mode": "named"},
    )


@pytest.fixture
def add_search():
    """Writes the search of the network of a result file, beside it."""

    def add(result, name="0.nc", attrs=(), **options):
        path = result.parents[1] / "similarity_search" / name
        with xr.open_dataset(result, engine="h5netcdf") as data:
            search = search_of(data.attrs | dict(attrs), **options)
        results.write(search, path)
        return path

    return add


GAINS = {"rotate": 0.6, "scale_zoom_out": 0.5, "solarize": 0.1}


@pytest.fixture
def networks(folder):
    """A trained network, more invariant than its untrained self to three transforms."""
    trained = folder.add("resnet8", "none", level=[GAINS.get(each, 0.2) for each in TRANSFORMS])
    return trained, folder.add("resnet8", "none", steps=0, level=0.3)


def test_tables_hold_the_numbers(networks, add_search):
    path = add_search(networks[0])
    (search,) = factors.read([path], load.read_files(networks).runs)
    assert search.title == "resnet8, none, seed 0"
    assert search.scope.startswith("resnet8, none, seed 0; digits train; 12 pairs of 3 classes; 9")
    distinct = [0, 1, 2, 4, 5, 6, 7]
    change = search.data["change"].values[:, distinct]
    boosted = (change > 0).reshape(3, 4, 7).mean(1)
    percent = (change / 0.5).reshape(3, 4, 7).mean(1)
    order = np.lexsort((-percent.mean(0), -boosted.mean(0)))
    table = factors.ranking(search)
    names = [ROWS[distinct[i]].replace("_", " ") for i in order]
    assert table.columns["row"] == names
    assert table.columns["pairs boosted"] == [f"{boosted.mean(0)[i]:.1%}" for i in order]
    assert table.columns["mean change"] == [f"{percent.mean(0)[i]:+.1%}" for i in order]
    firsts = [np.lexsort((-percent[c], -boosted[c]))[:5] for c in range(3)]
    among = [np.mean([i in first for first in firsts]) for i in order]
    assert table.columns["classes with it among 5"] == [f"{x:.0%}" for x in among]
    # 9 and 7 rows: too few for the first 25.
    found = factors.appearance(search).columns
    assert found["rows"] == ["9 all"] * 2 + ["7 distinct"] * 2
    assert found["base rate"] == ["56%"] * 2 + ["43%"] * 2
    share = rankings.appearance_share(rankings.distinct(search.statistics), 5, "percent_change")
    assert found["appearance"][3] == f"{share.share:.0%} ({share.low:.0%} to {share.high:.0%})"


def test_alignment_takes_the_gap_of_the_network_that_searched(networks, add_search, folder):
    runs = load.read_files([*networks, folder.add("vit_mu8", "none")]).runs
    (search,) = factors.read([add_search(networks[0])], runs)
    found = factors.align(search, runs)
    gap = {name: (GAINS.get(name, 0.2) - 0.3) for name in TRANSFORMS}
    expected = alignment.align(search.statistics, gap)
    assert found[1:] == pytest.approx(expected[1:], nan_ok=True)
    assert found.slots["gap"].values == pytest.approx(expected.slots["gap"].values, abs=1e-6)
    table = factors.aligned({"a": found})
    assert table.columns["by chance"] == [f"{found.chance:.0%}"]
    assert table.columns["bar, gap > 0"] == [f"{found.positive:.1%} ±{found.positive_error:.1%}"]


def test_alignment_refuses_what_does_not_belong_together(networks, add_search, folder):
    trained, untrained = networks
    path = add_search(trained)

    def refused(files):
        runs = load.read_files(files).runs
        with pytest.raises(UserError) as error:
            factors.align(factors.read([path], runs)[0], runs)
        return str(error.value)

    other = folder.add("vit_mu8", "none")
    message = refused([other, untrained])
    assert f"{path} was searched with the network" in message and f"of it: {other}" in message
    assert f"{trained} has no untrained network" in refused([trained, other])
    foreign = add_search(trained, "foreign.nc", attrs={"dataset": "imagenet2012"})
    (search,) = factors.read([foreign])
    with pytest.raises(UserError, match=r"foreign.nc is of imagenet2012 and .*0.nc of digits"):
        factors.align(search, load.read_files(networks).runs)
    fewer = folder.add("resnet8", "none", steps=0, images=20)
    with pytest.raises(UserError, match=r"0.nc and .*3.nc differ in image"):
        load.read_files([trained, fewer])


def test_specificity_and_spread_as_tables():
    found = xr.Dataset(
        {
            "wup": ("class_pair", [0.8, 0.9, 0.1, 0.2]),
            "iou_25": ("class_pair", [0.6, 1.0, 0.2, 0.4]),
            "iou_5": ("class_pair", [0.6, 1.0, 0.2, 0.4]),
            "spearman": ("class_pair", [0.0, 0.2, 0.4, 0.4]),
            "first": ("class_pair", [0, 1, 2, 3]),
            "second": ("class_pair", [1, 2, 3, 0]),
        },
        attrs={"classes": 4},
    )
    columns = list(factors.specific(found).columns.values())
    assert columns[1] == ["0.80", "0.80", "0.10"] and columns[2] == ["0.30", "0.30", "0.40"]
    assert columns[3][0].startswith("+0.50 (") and columns[3][2].startswith("-0.30 (")
    alike = factors.specific(found.assign(wup=found["wup"] * 0 + 0.5))
    assert [column[0] for column in alike.columns.values()][1:] == ["-"] * 3
    boxes = foreground.collect(
        (name, foreground.of_corners(each, 4, 4))
        for name, each in (("a", (0, 0, 2, 2)), ("a", (0, 0, 4, 4)), ("b", (1, 1, 3, 3)))
    )
    columns = factors.spread(foreground.spread(boxes)).columns
    assert columns["area (quartiles)"] == ["0.25 0.25 0.62", "0.34 0.44 0.53"]
    assert columns["std center x"] == ["0.118", "0.062"] and columns["objects"] == ["3", "2"]


def test_charts_show_what_was_found(networks, add_search):
    runs = load.read_files(networks).runs
    path = add_search(networks[0], class_names=WNIDS)
    (search,) = factors.read([path], runs)
    assert search.class_names == ["tench", "goldfish", "crane"]
    statistics = search.statistics

    heat = charts.heat_frame(statistics, search.class_names)
    table = rankings.distinct(statistics)
    order = rankings.order(table, over_classes=True)[0]
    values = table["proportion_boosted"].values[:, order]
    lines = np.argsort(-values.mean(1), kind="stable")
    np.testing.assert_array_equal(heat["proportion"], values[lines].ravel())
    names = [search.class_names[line] for line in lines]
    assert list(dict.fromkeys(heat["class"])) == names
    assert set(heat.loc[heat["row"] == "rotate 3", "kind"]) == {"geometric"}
    alike = charts.heat_frame(statistics, ["crane", "goldfish", "crane"])
    assert set(alike["class"]) == {"crane (0)", "goldfish", "crane (2)"}

    counts = rankings.counts(statistics, 5)
    first = charts.first_rows_frame(statistics, 5)
    assert first["share"].tolist() == pytest.approx((counts.values / 15).tolist())
    assert first["chance"].tolist() == pytest.approx((counts["expected"].values / 15).tolist())

    found = factors.align(search, runs)
    aligned = charts.alignment_frame({search.title: found})
    whole, slots = aligned.iloc[0], aligned.iloc[1:]
    assert [whole[x] for x in ("share", "low", "high", "chance")] == pytest.approx(
        [found.share, found.low, found.high, found.chance]
    )
    total = found.slots.values.sum()
    assert slots["share"].tolist() == pytest.approx(
        (-np.sort(-found.slots.values) / total).tolist()
    )
    which = slots.set_index("transform")["which"]
    assert which["rotate"] != which["shear x"]

    pairs = wordnet.specificity(statistics, count=50)
    violins = charts.specificity_frame(pairs)
    wup = pairs["wup"].values
    numbers = violins.groupby("group")["pairs"].first().to_dict()
    groups = {"different (< 0.25)": wup < 0.25, "similar (> 0.75)": wup > 0.75}
    groups["between"] = ~(groups["different (< 0.25)"] | groups["similar (> 0.75)"])
    assert numbers == {name: chosen.sum() for name, chosen in groups.items() if chosen.any()}
    of_iou = violins[violins["compared"] == factors.COMPARED["iou_25"]]
    for name, one in of_iou.groupby("group"):
        values = pairs["iou_25"].values[groups[name]]
        assert one["median"].unique() == [np.median(values)]
        fullest = one.loc[one["density"].idxmax()]
        inside = (values >= fullest["from"] - 1e-9) & (values <= fullest["to"] + 1e-9)
        assert one["density"].max() == 1 and inside.sum() >= len(values) / len(one)


def test_foreground_charts():
    boxes = foreground.collect(
        (name, foreground.of_corners((i, 0, i + 2, 2), 8, 8)) for name in "ab" for i in range(5)
    )
    left = charts.foreground_frame(boxes).set_index("part").loc["left"]
    assert (left["q25"], left["median"], left["q75"]) == (1 / 8, 2 / 8, 3 / 8)


@pytest.mark.parametrize("layout", ["page", "phone", "paper"])
def test_charts_are_drawn_in_every_layout(networks, add_search, layout):
    runs = load.read_files(networks).runs
    searches = factors.read([add_search(networks[0], class_names=WNIDS)], runs)
    boxes = foreground.collect([("a", foreground.of_corners((0, 0, 2, 2), 4, 4))])
    found = factor_section.blocks(searches, runs, boxes=("boxes.csv", boxes))
    for picture in (each for block in found for each in block.pictures):
        chart = picture.draw(picture.frame, layout)
        assert vega.save(chart, picture.frame, "svg").startswith(b"<svg"), picture.name


def test_section_says_what_was_found(networks, add_search):
    runs = load.read_files(networks).runs
    path = add_search(networks[0], class_names=WNIDS)
    searches = factors.read([path], runs)
    pairs = {searches[0].title: (np.zeros((2, 3, 4, 4, 3)), ["rotate 3 (+0.1)", "invert 3 (-0.2)"])}
    boxes = foreground.collect([("a", foreground.of_corners((0, 0, 2, 2), 4, 4))])
    found = list(factor_section.blocks(searches, runs, pairs=pairs, boxes=("boxes.csv", boxes)))
    names = [picture.name for block in found for picture in block.pictures]
    slug = "resnet8_none_seed_0"
    assert names == [
        *(f"{name}_{slug}" for name in ("factors", "first_rows")),
        "alignment",
        f"specificity_{slug}",
        *("foreground", "foreground_centers"),
    ]
    ((caption, sheet),) = found[0].images.items()
    assert sheet.titles == ["rotate 3 (+0.1)", "invert 3 (-0.2)"] and len(sheet.rows[0]) == 3
    assert "12 pairs of 3 classes" in caption
    for block in found[:-1]:
        for picture in block.pictures:
            assert "digits train; 12 pairs of 3 classes; 9 rows, embedding" in picture.caption
    share = rankings.appearance_share(searches[0].statistics, 5)
    sentence = found[0].sentences[1]
    assert f"{share.share:.0%} ({share.low:.0%} to {share.high:.0%})" in sentence
    assert share.verdict in sentence and "of 9 all rows, is 56%" in sentence
    aligned = factors.align(searches[0], runs)
    assert (
        aligned.verdict in found[1].sentences[0] and f"{aligned.share:.0%}" in found[1].sentences[0]
    )
    assert "takes 25% of the image" in found[-1].sentences[0]
    asked = factor_section.judged(searches, runs)[searches[0].title]
    assert asked["alignment"].share == aligned.share and asked["appearance"].top == 5
    assert len(asked["specificity"]) == 3
    assert "alignment" not in factor_section.judged(searches, runs[:1])[searches[0].title]
    # Without the untrained network the sentence says what is missing.
    alone = list(factor_section.blocks(searches, runs[:1]))
    assert not alone[1].pictures and "not judged" in alone[1].sentences[0]


def test_page_with_a_search_alone(folder, networks, add_search, tmp_path, monkeypatch):
    add_search(networks[0])
    for path in networks:
        path.unlink()
    drawn = []
    monkeypatch.setattr(page, "save", lambda each, to: drawn.append(each))
    assert main(["report", str(folder.path), f"--output={tmp_path}"]) == 0
    source = (tmp_path / "report.html").read_text()
    assert "<h2>Factors of variation" in source and "resnet8, none, seed 0" in source
    names = ["factors_resnet8_none_seed_0", "first_rows_resnet8_none_seed_0"]
    assert [each.name for each in drawn][:2] == names and all(f'id="{x}"' in source for x in names)
    assert "How invariance is measured" not in source and 'aria-label="Answer"' not in source


def test_two_searches_of_one_network_are_told_apart(networks, add_search):
    one = add_search(networks[0])
    other = add_search(networks[0], "1.nc", seed=1)
    titles = [each.title for each in factors.read([one, other])]
    assert titles == ["resnet8, none, seed 0", "resnet8, none, seed 0, named of embedding"]


def test_command_writes_tables(networks, add_search, tmp_path, capsys):
    path = add_search(networks[0], class_names=WNIDS)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file_name,x0,y0,x1,y1\na_0,0,0,2,2\n")
    output = tmp_path / "out"
    flags = ["--senses=wnid", f"--boxes={boxes}", "--boxes_image_size=4", f"--output={output}"]
    assert main(["factors", str(path), *map(str, networks), *flags]) == 0
    shown = capsys.readouterr().out
    assert "12 pairs of 3 classes" in shown and "boosted rows whose invariance gap" in shown

    def lines(name):
        with (output / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    (search,) = factors.read([path], load.read_files(networks).runs)
    table = lines("rankings")
    assert len(table) == 27
    first = [line["row"] for line in table if line["place_by_proportion_boosted"] == "1"]
    order = rankings.order(search.statistics)
    assert first == [ROWS[each] for each in order[:, 0]]
    for line in table:
        value = search.statistics["mean_percent_change"].sel(
            {"class": int(line["class"]), "row": line["row"]}
        )
        assert float(line["mean_percent_change"]) == pytest.approx(float(value), rel=1e-5)
    found = factors.align(search, load.read_files(networks).runs)
    (line,) = lines("alignment")
    assert float(line["share"]) == pytest.approx(found.share, rel=1e-5)
    assert {
        each["transform"]: int(each["slots"]) for each in lines("alignment_transforms")
    } == dict(
        zip(found.slots["transform"].values.tolist(), found.slots.values.tolist(), strict=True)
    )
    assert len(lines("specificity_pairs")) == 10_000
    assert [each["compared_by"] for each in lines("specificity")] == ["iou_25", "iou_5", "spearman"]
    assert lines("foreground")[0]["area_50"] == "0.25" and len(lines("appearance")) == 4


def test_command_keeps_the_classes_asked_for(networks, add_search, tmp_path, capsys):
    path = add_search(networks[0])
    assert main(["factors", str(path), "--classes=2,0", f"--output={tmp_path}"]) == 0
    assert "8 pairs of 2 classes" in capsys.readouterr().out
    assert not (tmp_path / "specificity.csv").exists()


def test_mistakes_are_named(networks, add_search, folder, capsys, tmp_path):
    path, other = add_search(networks[0]), folder.add("vit_mu8", "none")
    for arguments, message in (
        ([], "no search given"),
        ([tmp_path / "absent.nc"], "absent.nc is not a readable result file"),
        ([networks[0]], "0.nc lacks 'similarity'; expected a result file of `search`"),
        ([path, other], f"no file of the invariance is of it: {other}"),
        ([path, "--senses=wnid"], "3 of 3 classes have no WordNet id, the first is '0'"),
        ([path, "--senses=last"], "senses"),
        ([path, "--ranking=boost"], "ranking"),
        ([path, "--classes=0,shark"], "unknown class 'shark'"),
        ([path, f"--boxes={tmp_path}"], "holds no boxes"),
    ):
        assert main(["factors", *map(str, arguments)]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_examples_are_the_images_that_were_compared(tmp_path):
    config = ExperimentConfig().with_values(
        data={"name": "digits", "image_size": 16, "resize_size": 16, "canvas_size": 16},
        search={"rows": ("shear_x 9", "brightness 9"), "batch_size": 2, "seed": 3},
    )
    split, preprocess = "train[:40]", augment.get("none", size=16, resize=16)
    source = data.from_config(config.data, split, "search.split")
    measurement = SimilaritySearch.from_config(config)
    model = models.from_function(lambda images: images.reshape(len(images), -1), image_size=16)
    driver = Driver(
        model=model,
        measurements=[measurement],
        source=source,
        preprocess=preprocess,
        canvas_size=16,
        workers=0,
        mesh=devices.make_mesh(),
        per_device_batch_size=4,
        memory=2**30,
        shard_size=512,
        description="",
    )
    ((_, found),) = driver.run()
    main = measurement.datasets(found, driver.images)[MAIN]
    attrs = dict.fromkeys(("model", "augmentation", "parameters_sha256"), "m")
    attrs |= {
        "config": config.to_json(),
        "split": split,
        "dataset": "digits",
        "seed": 0,
        "steps": 0,
    }
    results.write(main.assign_attrs(attrs), tmp_path / "similarity_search/0.nc")
    (search,) = factors.read([tmp_path / "similarity_search/0.nc"])
    images, titles = factor_section.examples(search)
    assert images.shape == (2, 3, 16, 16, 3) and images.min() >= 0 and images.max() <= 1
    order = rankings.order(search.statistics, over_classes=True)[0]
    labels = search.statistics["row"].values[order]
    for shown, title, label, best in zip(images, titles, labels, ("max", "min"), strict=True):
        first, second, changed = shown.reshape(3, -1)
        change = cosine(first, changed) - cosine(first, second)
        stored = getattr(search.data["change"].sel(row=label), best)()
        assert change == pytest.approx(float(stored), abs=2e-3)
        name = label.replace("_", " ")
        assert title == f"{name} ({float(stored):+.2f})".replace("-", "\N{MINUS SIGN}")
    search.data["image1"].values[:] = "elsewhere"
    with pytest.raises(UserError, match="knows the image 'elsewhere', which digits"):
        factor_section.examples(search)


def cosine(first, second):
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)
