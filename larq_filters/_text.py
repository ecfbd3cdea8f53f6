"""Tables of plain text, 80 columns wide."""

from collections.abc import Iterable, Sequence

WIDTH = 80


def table(rows: Iterable[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """The lines of a table.

    Args:
        rows: The cells of each; what is too long loses its beginning, but for the last cell.
        widths: The width of each column; below 0, its cells are at the right.
    """
    return ["".join(_cells(row, widths)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    for i, (text, width) in enumerate(zip(row, widths, strict=True)):
        if len(text) > abs(width) and i < len(row) - 1:
            text = f"…{text[1 - abs(width) :]}"
        yield f"{text:<{width}}" if width >= 0 else f"{text:>{-width}}"
