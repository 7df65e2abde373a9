"""The committed study: its page is that of its results, and its answers are those of the page."""

import base64
import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from invariance_jax.__main__ import main
from invariance_jax.report import page

STUDY = pathlib.Path(__file__).parents[2] / "docs" / "study"


IMAGE = re.compile(r"data:image/webp;base64,([A-Za-z0-9+/=]+)")


def parts(source):
    """What a page shows, but for how the installed Altair and Vega describe and draw it."""
    datasets = re.search(r'id="datasets">(.*?)</script>', source)[1]
    body = re.search(r"<body>(.*?)<script", source, re.DOTALL)[1]
    return json.loads(datasets), IMAGE.sub("an image", body), IMAGE.findall(body)


def pixels(encoded):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))), np.float32)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The committed page, and one that is made of the committed results."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(STUDY / "results", folder / "docs" / "study" / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(page, "save", lambda picture, to: None)
        assert main(["report", "docs/study/results", "--output=docs/study"]) == 0
    made = (folder / "docs" / "study" / "report.html").read_text(encoding="utf-8")
    return (STUDY / "report.html").read_text(encoding="utf-8"), made


def test_the_page_is_made_again_from_the_committed_results(pages):
    (committed, text, images), (made, again, others) = map(parts, pages)
    assert committed == made
    assert text == again
    # The transforms are computed again, and tests compile them otherwise: a value may round to the
    # next grey level, for which WebP finds another form. Other images differ by 30 as a rule.
    assert len(images) == len(others) > 130
    for one, other in zip(images, others, strict=True):
        assert np.abs(pixels(one) - pixels(other)).mean() < 4


def test_the_results_name_no_place_of_a_machine(pages):
    for source in pages:
        assert not re.search(r"/(work|home|root|tmp)/", parts(source)[1])
    files = [path for path in STUDY.rglob("*") if path.suffix in (".nc", ".csv", ".jsonl")]
    assert len(files) > 20
    for path in files:
        assert not re.search(rb"/(work|home|root|tmp)/", path.read_bytes()), path


def test_the_answers_in_the_docs_are_those_of_the_page(pages):
    verdicts = re.findall(
        r'<b>([^<]+\?)</b> <span class="verdict [\w-]+">([\w ]+)</span>', pages[0]
    )
    text = (STUDY.parent / "results.md").read_text(encoding="utf-8")
    assert len(verdicts) == 5
    for number, (question, verdict) in enumerate(verdicts, start=1):
        assert f"| {number} | {question} | **{verdict}** |" in text
