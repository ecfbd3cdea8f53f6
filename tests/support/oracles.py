"""Recordings of other projects' released optimizers; oracles/README.md says how they were made."""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "oracles"


def load(name):
    """The arrays of a recording, by name."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)
