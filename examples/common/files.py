"""Files that are there as a whole, or not at all."""

import os
import pathlib
from collections.abc import Callable
from typing import Any


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Saves beside the path, and renames: there is never half a file."""
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    save(beside)
    beside.replace(path)
