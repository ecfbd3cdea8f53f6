"""The axes that all pictures are drawn into."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_or(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    return pyplot().subplots(layout="constrained")[1]


def pyplot() -> Any:
    """Matplotlib's pyplot, or an error that says how to install it."""
    try:
        from matplotlib import pyplot as module
    except ModuleNotFoundError as error:
        raise ImportError("pictures need matplotlib: pip install 'larq-filters[plots]'") from error
    return module


def finish(ax: "Axes", title: str, *, below: bool = False) -> "Axes":
    """The legend goes below the axes where it would lie on what is drawn."""
    ax.set_title(title, fontsize="medium")
    ax.grid(True, alpha=0.3)
    if below:
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))
    else:
        ax.legend(fontsize="small")
    return ax
