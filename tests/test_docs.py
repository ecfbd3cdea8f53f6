"""Every public class and function has an example, and every example runs."""

import doctest
import inspect
import pathlib

import larq_filters as lqf

import larq as lq
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

MODULES = [
    lqf.filters,
    lqf.optimizers,
    lqf.conversion,
    lqf.callbacks,
    lqf.export,
    lqf.models,
    lqf.recipes,
]
PUBLIC = [
    getattr(module, name) for module in MODULES for name in module.__all__ if name != "Filter"
]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__qualname__)
def test_examples_run(thing):
    names = {"lqf": lqf, "lq": lq, "np": np, "tf": tf, "scipy": scipy}
    tests = [
        test
        for test in doctest.DocTestFinder().find(thing, globs=names)
        if test.examples and (inspect.isfunction(thing) or test.name.startswith(thing.__name__))
    ]
    assert tests, f"{thing.__qualname__} has no example"
    for test in tests:
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
        assert result.failed == 0 and result.attempted > 0


def test_the_readmes_python_runs():
    readme = (pathlib.Path(__file__).parent.parent / "README.md").read_text("utf-8")
    blocks = [block.split("```")[0] for block in readme.split("```python\n")[1:]]
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
