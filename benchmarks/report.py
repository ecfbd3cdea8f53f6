"""Writes the tables of README and of the pages in docs/ from the JSON in results/.

    python benchmarks/report.py

Each is between two comments, of which the first names it.
"""

import pathlib
import re
from collections.abc import Callable

from reports import accuracy, life, searches, speed, untuned

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", DOCS / "results.md", *sorted((DOCS / "guides").glob("*.md")))
TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        *(accuracy.front, accuracy.accuracy, accuracy.long_trainings, accuracy.pretrained),
        *(searches.search, searches.by_steps, searches.decays, searches.budget),
        *(untuned.untuned, untuned.left_by_fit, untuned.untuned_tasks),
        *(untuned.without_end, untuned.ideas),
        *(life.inertia, life.events, life.recalibrated, life.flips),
        *(speed.speed, speed.latency),
    )
}


def filled(page: str) -> str:
    """The text of a page with its tables as the results have them now."""

    def current(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]]()}\n<!-- end -->"

    return re.sub(r"(?s)(<!-- (\w+) by benchmarks/report.py -->)\n.*?<!-- end -->", current, page)


def main() -> None:
    for path in PAGES:
        path.write_text(filled(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
