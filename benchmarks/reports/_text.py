"""Tables in Markdown."""

import statistics
from typing import Any


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return text.replace(" ± ", "\u00a0±\u00a0")  # is not broken over two lines


def percent(values: list[float], digits: int = 1) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" ± {100 * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.{digits}f}{spread}"


def epochs(number: Any) -> str:
    return f"{number} epoch{'' if str(number) == '1' else 's'}"
