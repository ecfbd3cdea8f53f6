"""Writing files as a whole."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; it takes its place if all goes well, else nothing changes.

    Of several such blocks in one another, the first file takes its place when all are written.

    Raises:
        OSError: As writing does, with the name of `path`; at the start if it is a folder.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        if error.errno is None or str(error.filename or beside) != str(beside):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # such as that its folder is a file
            beside.unlink()


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file; at `path` there is never a part of it."""
    with replaced(path) as beside:
        beside.write_bytes(data)
