"""The objective at every step."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .style import PALE, TRUTH, Q, blank, legend_below_title, minus, number

WINDOWS, RAW_POINTS = 100, 4000


def draw_trace(figure: Any, fit: Any, compact: bool = False) -> None:
    """The whole run, and the last half of it closer."""
    values = np.asarray(fit.history, np.float64)
    if not np.isfinite(values).any():
        blank(figure.subplots(), "no step had a finite objective")
        return
    if compact:
        _trace(figure.subplots(), fit, values, 0, "The objective should rise, then stay flat")
        return
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    _trace(left, fit, values, 0, "The objective should rise, then stay flat")
    _trace(right, fit, values, len(values) // 2, "Last half, closer: is a slope left?")
    right.set_ylabel("")


def _trace(ax: Axes, fit: Any, values: np.ndarray, start: int, title: str) -> None:
    """From `start` on; from the middle, the vertical axis is that of the means."""
    windows = WINDOWS if start == 0 else WINDOWS // 3
    steps, part = np.arange(start + 1, len(values) + 1), values[start:]
    thin = slice(None, None, max(1, len(part) // RAW_POINTS))
    ax.plot(steps[thin], part[thin], color=PALE, lw=0.6, label="each step", rasterized=True)
    at, means = window_means(part, windows)
    ax.plot(start + at, means, color=Q, label=f"mean of {max(1, len(part) // windows):,} steps")
    if np.isfinite(fit.elbo):
        ax.axhline(fit.elbo, color=TRUTH, ls="--", lw=1.1, label=f"final ELBO {number(fit.elbo)}")
    ax.set_ylim(*(y_limits(part, means, fit.elbo) if start == 0 else padded([*means, fit.elbo], 1.0)))
    ax.set_title(title)
    ax.set_xlabel("step")
    ax.set_ylabel(f"{fit.options.get('objective', 'objective')} (nats)")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: minus(f"{y:,.6g}" if abs(y) < 1e6 else f"{y:.3e}")))
    if start == 0:
        legend_below_title(ax, loc="lower right")


def window_means(values: np.ndarray, windows: int = WINDOWS) -> tuple[np.ndarray, np.ndarray]:
    """(last step of each window, mean of its finite values)."""
    width = max(1, len(values) // windows)
    n = len(values) // width
    blocks = values[len(values) - n * width :].reshape(n, width)
    finite = np.isfinite(blocks)
    sums = np.where(finite, blocks, 0).sum(1)
    count = finite.sum(1)
    means = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return len(values) - n * width + width * np.arange(1, n + 1), means


def y_limits(values: np.ndarray, means: np.ndarray, elbo: float) -> tuple[float, float]:
    """Shows the settled part whole, and of the early climb as much as does not flatten it."""
    settled = values[len(values) // 4 :]
    settled = settled[np.isfinite(settled)]
    settled = settled if settled.size else values[np.isfinite(values)]
    low, high = np.quantile(settled, [0.005, 0.995])
    reach = [v for v in (*means[-max(1, 4 * len(means) // 5) :], elbo) if np.isfinite(v)]
    return padded([low, high, *reach], 0.08)


def padded(values: Any, share: float) -> tuple[float, float]:
    """The range of the finite values, widened by a share of it at both ends."""
    finite = [v for v in values if np.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    pad = share * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad
