"""One look for all figures: palette, figure class, and the few words and marks they share."""

import contextlib
import io
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as _Figure

# Okabe and Ito (2008): distinct for colour-blind readers. q is blue; what it is compared with, vermilion.
Q, PALE, TRUTH, GREEN, INK, FAINT = "#0072B2", "#c5def0", "#D55E00", "#009E73", "#24292f", "#8c959f"
VERDICTS = {"RELIABLE": "#1a7f37", "DOUBTFUL": "#c58a00", "UNRELIABLE": "#b3261e"}  # near those of the page

STYLE = {
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.labelsize": 9, "axes.linewidth": 0.8,
    "axes.spines.right": False, "axes.spines.top": False, "axes.titlecolor": INK, "axes.titlelocation": "left",
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlepad": 8, "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 6), "figure.dpi": 100, "figure.facecolor": "white", "figure.titlesize": 11,
    "figure.titleweight": "bold", "font.family": ["DejaVu Sans"], "font.size": 9, "legend.fontsize": 8,
    "legend.frameon": False, "lines.linewidth": 1.6, "lines.solid_capstyle": "round", "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "xtick.major.size": 3, "ytick.major.size": 3, "xtick.minor.size": 0, "ytick.minor.size": 0,
}  # fmt: skip


class Figure(_Figure):
    """A Matplotlib figure outside of pyplot's global state, which notebooks still show."""

    def _repr_png_(self) -> bytes:
        return to_png(self, 100)


def styled() -> contextlib.AbstractContextManager:
    """The style, for as long as artists are made."""
    return mpl.rc_context(STYLE)  # pyright: ignore[reportArgumentType]


def new_figure(width: float, height: float) -> Figure:
    """Size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def to_png(figure: Any, dpi: int) -> bytes:
    """PNG bytes, without a warning for letters the font lacks."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def text(words: Any, limit: int = 26) -> str:
    """A user's string as a label: no mathematics, one line, not too long."""
    line = " ".join(str(words).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return line.replace("\\", "＼").replace("$", r"\$")


def clean_y(ax: Axes) -> None:
    """A density's height is not read: no vertical axis."""
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)


def blank(ax: Axes, words: str) -> None:
    """An empty panel that says why it is empty."""
    ax.axis("off")
    ax.text(0.5, 0.5, words, ha="center", va="center", color=FAINT, transform=ax.transAxes, wrap=True)


def number(value: float, digits: int = 2) -> str:
    """A number in words of at most a few digits; says so if it is none."""
    if value is None or np.isnan(value):
        return "not available"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:,.{digits}f}" if 1e-3 <= abs(value) < 1e9 or value == 0 else f"{value:.{digits}e}"
    return minus(shown)


def minus(shown: str) -> str:
    """A true minus sign, as on Matplotlib's own axes."""
    return shown.replace("-", "−")


def legend_below_title(ax: Axes, **options: Any) -> None:
    ax.legend(**{"loc": "best", "handlelength": 1.6, "borderaxespad": 0.2, **options})


def shared_legend(figure: Any, handles: list, labels: list[str]) -> None:
    """One legend for all panels, under them."""
    wide = figure.bbox.width / figure.get_figure(root=True).dpi
    columns = len(labels) if wide > 1.6 * len(labels) else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.8, columnspacing=1.2)
