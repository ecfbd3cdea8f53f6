"""Files that are there as a whole, or not at all."""

import os
import pathlib
import secrets
from collections.abc import Callable
from typing import Any


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Saves beside the path, and renames: there is never half a file, also if power fails."""
    # A number alone may be that of a process on another machine, too.
    beside = path.with_name(f".{os.getpid()}{secrets.token_hex(4)}.{path.name}")
    try:
        save(beside)
        with beside.open("r+b") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
