"""Files that are there as a whole, or not at all."""

import os
import pathlib
from collections.abc import Callable
from typing import Any


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Saves beside the path, and renames: there is never half a file, also if power fails."""
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        save(beside)
        with beside.open("r+b") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
