"""Every public class and function has an example, and every example runs."""

import dataclasses
import doctest
import inspect
import os
import pathlib
import tempfile

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

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


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a search makes a folder
    readme = (pathlib.Path(__file__).parent.parent / "README.md").read_text("utf-8")
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
