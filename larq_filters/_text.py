"""Tables of plain text, 80 columns wide, and of HTML."""

import html as _html
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


def html_table(rows: Iterable[Sequence[str]], widths: Sequence[int], below: str = "") -> str:
    """The same table as HTML, for notebooks, with plain text below it.

    Args:
        rows: The cells of each; the first row is the head.
        widths: Below 0, the cells of a column are at the right.
        below: Lines that follow the table.
    """
    lines = []
    for i, row in enumerate(rows):
        tag = "td" if i else "th"
        cells = (
            f'<{tag} style="text-align: {"left" if width >= 0 else "right"}">{_html.escape(text)}'
            f"</{tag}>"
            for text, width in zip(row, widths, strict=True)
            if width != 0
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head, *body = lines
    style = "white-space: pre-wrap"
    after = f'<pre style="{style}">{_html.escape(below)}</pre>' if below else ""
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>{after}"
