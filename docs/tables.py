"""Tables of the pages, from the JSON in benchmarks/results."""

import pathlib

TABLES = {}


def write(folder: pathlib.Path) -> None:
    """Each table as a file that a page includes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        (folder / f"{name}.md").write_text(f"{table()}\n", "utf-8")
