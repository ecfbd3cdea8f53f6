"""Writing files as a whole."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; it takes its place if all goes well, else nothing changes.

    Raises:
        OSError: As writing does, with the name of `path`.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # such as that its folder is a file
            beside.unlink()


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file; at `path` there is never a part of it."""
    with replaced(path) as beside:
        beside.write_bytes(data)
