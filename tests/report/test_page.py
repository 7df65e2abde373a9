"""The page: whole, self-contained, escaped, readable without sight."""

import html.parser
import json
import re

import numpy as np
import pytest

from invariance_jax.errors import UserError
from invariance_jax.report import load, vega
from invariance_jax.report import page as page_of

CHARTS = (
    *("sources", "accuracy_and_invariance", "accuracy", "by_magnitude", "boxes_by_magnitude"),
    *("heat_map", "invariance_gap", "small_translations"),
)
VOID = {"meta", "img", "input", "br"}


class Page(html.parser.HTMLParser):
    """Tags in order; fails where one is closed that is not open."""

    def __init__(self, path):
        super().__init__()
        self.path, self.open, self.tags, self.text = path, [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def output(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("output")
    images = np.random.default_rng(0).random((13, 10, 8, 8, 3))
    results = load.read([study.path])
    path = page_of.write(
        results, folder, example=images, notes=["a <file> is damaged"], command="make <it> again"
    )
    assert path == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(output):
    return Page(output / "report.html")


def test_figures_stand_beside_the_page(output):
    by_model = {"by_magnitude", "boxes_by_magnitude"}
    expected = set(CHARTS) - by_model
    expected |= {f"{name}_{model}" for name in by_model for model in ("resnet8", "vit_mu8")}
    names = {path.name for path in (output / "figures").iterdir()}
    endings = ("svg", "pdf", "png", "csv")
    assert names == {f"{name}.{ending}" for name in expected for ending in endings}
    assert {path.name for path in output.iterdir()} == {"report.html", "figures"}
    lines = (output / "figures" / "accuracy.csv").read_text().splitlines()
    assert lines[0].startswith("row,model,training,augmentation,details,seeds,top1,low,high,gain")
    assert len(lines) == 7


def data_of(page, name):
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page.source)
    return json.loads(found[1])


def test_page_describes_every_chart_with_caption_and_alternative(page):
    assert [each["id"] for each in page.all("figure")] == list(CHARTS)
    assert len(page.all("figcaption")) == len(CHARTS)
    labels = [each["aria-label"] for each in page.all("div") if each.get("role") == "img"]
    assert len(labels) == len(CHARTS) and all(len(label) > 20 for label in labels)
    specs, datasets = data_of(page, "specs"), data_of(page, "datasets")
    assert set(specs) == set(CHARTS) and set(data_of(page, "themes")) == {"light", "dark"}
    for name, spec in specs.items():
        assert set(spec) == {"page", "phone", "data"}, name
        assert '"table"' in json.dumps(spec["page"]) and "datasets" not in spec["page"]
    # Charts of one table share it.
    assert specs["boxes_by_magnitude"]["data"] == specs["by_magnitude"]["data"] == "by_magnitude"
    assert len(datasets) == len(CHARTS) - 1
    top1 = dict(zip(datasets["accuracy"]["row"], datasets["accuracy"]["top1"], strict=True))
    assert top1["resnet8, translate"] == 0.9
    assert vega.bundle().replace("</script", "<\\/script") in page.source


def test_page_answers_the_papers_questions(page):
    text = " ".join(" ".join(page.text).split())
    assert "Is training data the main source of invariance? yes" in text
    assert "data against augmentation: yes ; training without augmentation 0.40" in text
    assert "mostly appearance, and specific to classes? not judged" in text
    assert (
        len([each for each in page.all("span") if each.get("class", "").startswith("verdict")]) == 5
    )


def test_page_shows_the_transforms(page):
    shown = [image for image in page.all("img") if image["src"].startswith("data:image/webp")]
    assert len(shown) == 130 and all(image["alt"] for image in shown)


def test_page_asks_for_nothing_outside_itself(page):
    for _, attributes in page.tags:
        for name in ("src", "srcset", "href", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"@import|url\(|<link", page.source.replace(vega.bundle(), ""))
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'") and "eval" not in policy


def test_page_is_in_order(page):
    assert page.source.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    # Each table scrolls inside a container of its own.
    assert (
        len(page.all("table"))
        == len([d for d in page.all("div") if d["class"].startswith("scroll")])
        == 8
    )


def test_page_holds_statements_numbers_and_provenance(page):
    text = " ".join(" ".join(page.text).split())
    for words in (
        "In these models, training moves invariance most.",
        "4 of 4 trained models are more invariant to small translations",
        "measured on 40 images of digits (test)",
        "(baseline − transformed) / (baseline + 10",  # noqa: RUF001
        "jax 1.2.3",
        '"name": "resnet8"',
        "make <it> again",
        "a <file> is damaged",
        "90.0",
        "augment",  # a field in which they differ
    ):
        assert words in text


def test_parameters_are_named(page, study):
    text = " ".join(page.text)
    for run in load.read([study.path]).runs:
        assert run.network.parameters[:12] in text


@pytest.fixture(scope="module")
def lone(tmp_path_factory, make_folder):
    """The page of one network with a name that must be escaped."""
    folder = make_folder(tmp_path_factory.mktemp("lone"))
    folder.add("<b>evil</b></pre><script>", "none")
    output = tmp_path_factory.mktemp("output")
    return Page(page_of.write(load.read([folder.path]), output))


def test_names_are_escaped(lone):
    assert "<b>evil" not in lone.source
    # The page's own five, and none of a name.
    assert lone.source.count("<script") == len(lone.all("script")) == 5
    assert "&lt;b&gt;evil" in lone.source
    (name,) = data_of(lone, "datasets")["heat_map"]["model"]["of"]
    assert name == "<b>evil</b></pre><script>"
    assert (lone.path.parent / "figures/by_magnitude_b_evil_b_pre_script.png").is_file()


def test_one_model_alone_has_neither_gap_nor_accuracy(lone):
    names = ["by_magnitude", "boxes_by_magnitude", "heat_map", "small_translations"]
    assert [each["id"] for each in lone.all("figure")] == names
    text = "".join(lone.text)
    for absent in ("Make this page again", "Fields of the configs", "What training adds"):
        assert absent not in text
    assert "What these results do not hold" in text and "accuracy: " in text
    assert all(each.get("class") != "problems" for each in lone.all("ul"))


def test_accuracy_alone_makes_a_page_and_the_same_one_each_time(folder, tmp_path):
    folder.add_accuracy("resnet8", "none", 0.5)
    results = load.read([folder.path])
    first, second = (
        page_of.write(results, tmp_path / name, command="again", figures=False).read_bytes()
        for name in ("one", "two")
    )
    assert first == second
    page = Page(tmp_path / "one/report.html")
    assert [each["id"] for each in page.all("figure")] == ["accuracy"]
    assert "How invariance is measured" not in page.source


def test_what_augmentation_learned_is_drawn(folder, tmp_path):
    folder.add_accuracy("resnet8", "none", 0.5)
    rows = [{"step": 0, "width/rotate": 20.0}, {"step": 5, "loss": 1.0, "width/rotate": 35.55}]
    path = page_of.write(load.read([folder.path]), tmp_path, widths={"run 1": rows})
    page = Page(path)
    assert [each["id"] for each in page.all("figure")] == ["accuracy", "widths"]
    assert "At the end: run 1, rotate 35.5." in page.source or "rotate 35.6." in page.source
    assert "What augmentation learned" in page.text


def test_a_failure_leaves_the_earlier_page(folder, tmp_path, monkeypatch):
    folder.add_accuracy("resnet8", "none", 0.5)
    results = load.read([folder.path])
    path = page_of.write(results, tmp_path / "output")
    before = path.read_bytes()

    def fail(*_, **__):
        raise RuntimeError("no more space")

    monkeypatch.setattr(page_of, "_render", fail)
    with pytest.raises(RuntimeError, match="no more space"):
        page_of.write(results, tmp_path / "output")
    assert path.read_bytes() == before


def test_wrong_examples_write_nothing(study, tmp_path):
    with pytest.raises(UserError, match="examples has shape"):
        page_of.write(load.read([study.path]), tmp_path / "output", example=np.zeros((2, 2)))
    assert not (tmp_path / "output").exists()
