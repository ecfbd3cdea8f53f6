"""Prints what pip has to install beside nightly builds: all that `.[dev]` asks for but TensorFlow.

    pip install --no-deps --editable . && pip install $(python tests/support/nightly.py)

larq_filters' own bounds on TensorFlow would keep pip from installing a nightly build.
"""

import importlib.metadata

from packaging.requirements import Requirement

REPLACED = {"tensorflow", "tf-keras", "tf_keras"}

for line in importlib.metadata.requires("larq-filters"):
    requirement = Requirement(line)
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": "dev"})
    if wanted and requirement.name not in REPLACED:
        print(f"{requirement.name}{requirement.specifier}")
