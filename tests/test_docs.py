"""What documentation and docstrings show runs as it is shown."""

import doctest
import importlib
import pathlib
import pkgutil

import pytest

import invariance_jax

DOCS = pathlib.Path(__file__).parents[1] / "docs"
MODULES = sorted(
    each.name
    for each in pkgutil.walk_packages(invariance_jax.__path__, "invariance_jax.")
    if ".configs" not in each.name and not each.name.endswith("__main__")
)


@pytest.mark.parametrize("page", ["library", "factors", "your_model"])
def test_pages_for_notebooks_run(page):
    found = doctest.testfile(str(DOCS / f"{page}.md"), module_relative=False)
    assert found.attempted > 10 and not found.failed


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    assert not doctest.testmod(importlib.import_module(name)).failed
