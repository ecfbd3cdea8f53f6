"""Every public class and function has an example, and every example runs."""

import dataclasses
import doctest
import importlib.util
import inspect
import json
import os
import pathlib
import re
import tempfile
from xml.etree import ElementTree

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
from helpers import slow_but

MODULES = [*(getattr(lqf, name) for name in lqf.__all__), lqf.tuning]
THINGS = [getattr(module, name) for module in MODULES for name in module.__all__]
PUBLIC = [thing for thing in THINGS if thing.__module__.startswith("larq_filters.")]  # our own


def test_results_cannot_be_changed():
    results = [thing for thing in PUBLIC if dataclasses.is_dataclass(thing)]
    assert len(results) > 10
    for thing in results:
        assert thing.__dataclass_params__.frozen, thing


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__qualname__)
def test_examples_run(thing):
    names = {"lqf": lqf, "lq": lq, "np": np, "tf": tf, "scipy": scipy}
    names |= {module.__name__: module for module in (dataclasses, os, tempfile)}
    tests = [
        test
        for test in doctest.DocTestFinder().find(thing, globs=names)
        if test.examples and (inspect.isfunction(thing) or test.name.startswith(thing.__name__))
    ]
    assert tests, f"{thing.__qualname__} has no example"
    for test in tests:
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        assert result.failed == 0 and result.attempted > 0


def test_the_example_of_a_search_runs(tmp_path):
    names = {"lqf": lqf, "lq": lq, "np": np, "tf": tf, "folder": tmp_path}
    test = doctest.DocTestParser().get_doctest(lqf.tuning.__doc__, names, "tuning", None, None)
    assert doctest.DocTestRunner().run(test).failed == 0 and test.examples


ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def python_of(page):
    return [block.split("```")[0] for block in page.read_text("utf-8").split("```python\n")[1:]]


WITH_PYTHON = [page for page in PAGES if python_of(page)]
FIRST = [page for page in WITH_PYTHON if page.stem in ("README", "larq", "batch_norm")]


@pytest.mark.parametrize("page", slow_but(FIRST, WITH_PYTHON), ids=lambda page: page.stem)
def test_the_python_of_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a search makes a folder
    names = {}
    for block in python_of(page):
        exec(compile(block, page.name, "exec"), names)


def test_pages_with_python_are_found():
    names = {page.stem for page in PAGES if python_of(page)}
    assert {"README", "export", "searching", "fine_tuning", "larq", "latent"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_files_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_the_picture_is_drawn_from_its_record(tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    record = json.loads((ROOT / "docs" / "pictures" / "one_bit.json").read_text("utf-8"))
    y, theta = np.array(record["y"]), np.array(record["theta"])
    assert (theta == np.where(y > 0, -1, 1)).mean() > 0.99  # zeros are rounded
    pictures.draw(record, tmp_path / "one_bit.png")
    assert (tmp_path / "one_bit.png").stat().st_size > 5000


def test_the_package_index_gets_no_dead_links(monkeypatch):
    given = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    source = (ROOT / "setup.py").read_text("utf-8")
    for repository in ("", "https://example.org/larq_filters"):
        text = re.sub(r'^REPOSITORY = ".*"$', f'REPOSITORY = "{repository}"', source, flags=re.M)
        exec(compile(text, str(ROOT / "setup.py"), "exec"), {"__file__": str(ROOT / "setup.py")})
        links = re.findall(r"\]\(([^)]+)\)", given["long_description"])
        assert links and all(link.startswith("https://") for link in links)
        assert bool(repository) == any(link.startswith("https://example.org") for link in links)


LATENCY = lqf.export.Latency("<default>", 26.0, 25.5, 26.5)
DIFFERENCE = lqf.export.Difference("<logits>", 1e-6, 1e-7, 1.0, 0.0)
RECORD = lqf.export.LayerRecord("<a>", "QuantDense", 1, 1, "MUL", 64, 256, False, "a", "b")
SHOWN = {
    "report": lqf.export.Report((RECORD,), 900, 0, 1, 0, 64, ("default",)),
    "verification": lqf.export.Verification((DIFFERENCE,), 100, 1e-3),
    "benchmark": lqf.export.Benchmark((LATENCY,), runs=50, threads=1),
    "explanation": lqf.recipes.explain(0.1, 0.9, 1e-4, print_fn=None),
}


@pytest.mark.parametrize("result", SHOWN.values(), ids=SHOWN)
def test_results_are_tables_in_notebooks(result):
    """Well-formed, with a row for each, and every word of the printed table."""
    shown = ElementTree.fromstring(f"<div>{result._repr_html_()}</div>")
    rows = shown.findall(".//tr")
    assert len(rows) == 1 + len(getattr(result, "hyperparameters", "1"))
    assert len({len(row) for row in rows}) == 1
    words = {word.strip("…") for word in str(result).split() if set(word) != {"-"}}
    assert words <= set(" ".join(shown.itertext()).split())
