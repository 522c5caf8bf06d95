"""The posterior coordinate by coordinate, and pair by pair: q, and q corrected by importance weights; or the draws alone,
where these are corrected already."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from . import words
from .draws import Coordinate, Draws
from .style import INK, TRUTH, Q, blank, clean_y, shared_legend, text

MARGINALS, PAIRS, BINS, DOTS = 12, 5, 256, 1200


def draw_marginals(figure: Any, fit: Any, compact: bool = False) -> None:
    """Density of the draws with their mean and 90 % interval, and for draws of q the reweighted density."""
    draws = Draws(fit)
    chosen = draws.chosen(4 if compact else MARGINALS)
    columns = min(len(chosen), 2 if compact else 4)
    axes = np.atleast_1d(figure.subplots(math.ceil(len(chosen) / columns), columns, squeeze=False)).ravel()
    for ax, at in zip(axes, chosen, strict=False):
        marginal(ax, draws.column(at), draws.weights)
        ax.set_title(text(at.name))
    for ax in axes[len(chosen) :]:
        ax.axis("off")
    figure.suptitle(_caption(draws, len(chosen), fit.plated), x=0.01, ha="left")
    handles, labels = _key(draws)
    shared_legend(figure, handles, [n.split(":")[0] for n in labels] if compact else labels)


def _caption(draws: Draws, shown: int, plated: bool) -> str:
    what = "Latents, all rows pooled" if plated else "Posterior marginals"
    left = draws.size - shown
    return what + (f": {shown} of {draws.size:,} ({left:,} left out)" if left else "")


def _key(draws: Draws) -> tuple[list, list[str]]:
    handles = [Patch(color=Q, alpha=0.3), Line2D([], [], color=INK, marker="o", ms=4, lw=2.2)]
    labels = [words.DRAWS[draws.origin], "mean, 90% interval"]
    if draws.origin != "none":
        return handles, labels
    if draws.weights is None:
        handles += [Line2D([], [], lw=0)]
        labels += ["(too few effective draws to correct q)"]
    else:
        handles += [Line2D([], [], color=TRUTH, ls="--")]
        labels += ["corrected by weights: should agree"]
    return handles, labels


def marginal(ax: Axes, x: np.ndarray, weights: np.ndarray | None) -> None:
    """One coordinate; bars if it takes few whole values."""
    keep = np.isfinite(x)
    if not keep.any():
        blank(ax, "not finite")
        return
    weights = None if weights is None else weights[keep]
    x = x[keep]
    clean_y(ax)
    if is_discrete(x):
        _bars(ax, x, weights)
        return
    low, mean, high = np.quantile(x, 0.05), x.mean(), np.quantile(x, 0.95)
    span = reach(x, weights)
    grid, density = smooth_density(x, None, span)
    top = density.max()
    ax.fill_between(grid, density, color=Q, alpha=0.25, lw=0)
    ax.plot(grid, density, color=Q, lw=1.2)
    if weights is not None:
        _, corrected = smooth_density(x, weights, span)
        ax.plot(grid, corrected, color=TRUTH, ls="--", lw=1.4)
        top = max(top, corrected.max())
    ax.plot([low, high], [-0.06 * top] * 2, color=INK, lw=2.2, clip_on=False)
    ax.plot([mean], [-0.06 * top], "o", color=INK, ms=4, clip_on=False)
    ax.set_ylim(-0.12 * top, 1.06 * top)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def is_discrete(x: np.ndarray) -> bool:
    return bool(np.all(x == np.round(x)) and np.unique(x).size <= 30)


def _bars(ax: Axes, x: np.ndarray, weights: np.ndarray | None) -> None:
    values = np.unique(x)
    ax.bar(values, [(x == v).mean() for v in values], color=Q, alpha=0.35, width=0.7)
    if weights is not None:
        share = np.array([weights[x == v].sum() for v in values]) / weights.sum()
        ax.plot(values, share, "_", color=TRUTH, ms=14, mew=1.6)
    ax.set_ylim(0, None)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def smooth_density(
    x: np.ndarray, weights: np.ndarray | None, span: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density on a grid; the bandwidth does not depend on the weights, the ends reflect."""
    counts, edges = np.histogram(x, BINS, span, weights=weights)
    total = x.size if weights is None else weights.sum()
    width = edges[1] - edges[0]
    return edges[:-1] + width / 2, gaussian_filter(counts / (total * width), bandwidth(x) / width, mode="reflect")


def reach(x: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
    """Where q, or q corrected, has all but a thousandth of its mass; wider by the smoothing, but not past a bound."""
    low, high = np.quantile(x, [0.0005, 0.9995])
    if weights is not None:
        order = np.argsort(x)
        mass = np.cumsum(weights[order]) / weights.sum()
        low = min(low, x[order[np.searchsorted(mass, 0.0005)]])
        high = max(high, x[order[min(np.searchsorted(mass, 0.9995), x.size - 1)]])
    if not high > low:
        return low - 0.5, high + 0.5
    width = bandwidth(x)
    bound = lambda near: near.mean() > 0.01  # this much mass within one bandwidth of the end: a hard bound
    return low - 3 * width * (not bound(x < low + width)), high + 3 * width * (not bound(x > high - width))


def bandwidth(x: np.ndarray) -> float:
    """Silverman's rule, robust."""
    q25, q75 = np.quantile(x, [0.25, 0.75])
    spread = min(s for s in (x.std(), (q75 - q25) / 1.34, np.inf) if s > 0)
    return 1.0 if not np.isfinite(spread) else 1.06 * spread * max(x.size, 2) ** -0.2


def draw_pairs(figure: Any, fit: Any, compact: bool = False) -> None:
    """Draws with their contours; draws of q sized by their importance weight, with contours of the reweighted density."""
    draws = Draws(fit)
    chosen = draws.chosen(3 if compact else PAIRS)
    n = len(chosen)
    axes = figure.subplots(n, n, squeeze=False)
    columns = {at: draws.column(at) for at in chosen}
    for i, row in enumerate(chosen):
        for j, column in enumerate(chosen):
            ax = axes[i, j]
            if j > i:
                ax.axis("off")
                continue
            if i == j:
                marginal(ax, columns[row], draws.weights)
            else:
                pair(ax, columns[column], columns[row], draws.weights)
            _label(ax, row, column, i, j, n)
    left = draws.size - n
    title = "Pairs" if compact else "Pairs: shapes and correlations" + (" q found" if draws.origin == "none" else "")
    title += f", {n} of {draws.size:,} coordinates" if left else ""
    figure.suptitle(title, x=0.01, ha="left")
    handles = [Line2D([], [], color=Q, marker="o", ms=4, alpha=0.6), Line2D([], [], color=TRUTH, ls="--")]
    shown = "q" if draws.origin == "none" else words.DRAWS[draws.origin]
    labels = [f"{shown} (regions of 50% and 90%)", "corrected by weights" + ("" if compact else ": should agree")]
    known = 1 if draws.weights is None else 2
    shared_legend(figure, handles[:known], labels[:known])


def _label(ax: Axes, row: Coordinate, column: Coordinate, i: int, j: int, n: int) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(3))
    if i == n - 1:
        ax.set_xlabel(text(column.name, 16))
    else:
        ax.tick_params(labelbottom=False)
    if j == 0 and i > 0:
        ax.set_ylabel(text(row.name, 16))
    if j > 0 or i == 0:
        ax.tick_params(labelleft=False)


def pair(ax: Axes, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> None:
    """Two coordinates; the area of a dot is its weight."""
    keep = np.isfinite(x) & np.isfinite(y)
    if not keep.any():
        blank(ax, "not finite")
        return
    weights = None if weights is None else weights[keep] / weights[keep].sum()
    x, y = x[keep], y[keep]
    some = slice(None, None, max(1, x.size // DOTS))
    area = 3.0 if weights is None else np.clip(3.0 * x.size * weights[some], 0.3, 120)
    ax.scatter(x[some], y[some], area, color=Q, alpha=0.25, lw=0, rasterized=True)
    box = [reach(x, weights), reach(y, weights)]
    if is_discrete(x) or is_discrete(y) or x.std() == 0 or y.std() == 0:
        return
    _contours(ax, x, y, box, None, colors=Q, linewidths=1.0)
    if weights is not None:
        _contours(ax, x, y, box, weights, colors=TRUTH, linewidths=1.2, linestyles="--")


def _contours(ax: Axes, x: np.ndarray, y: np.ndarray, box: list, weights: np.ndarray | None, **look: Any) -> None:
    """Highest-density regions of mass 50 % and 90 %."""
    bins = 90
    counts, ex, ey = np.histogram2d(x, y, bins, box, weights=weights)
    sigma = [1.2 * bandwidth(v) * bins / (b[1] - b[0]) for v, b in ((x, box[0]), (y, box[1]))]
    density = gaussian_filter(counts, sigma, mode="constant")
    ordered = np.sort(density.ravel())[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    levels = sorted({float(ordered[np.searchsorted(mass, m)]) for m in (0.5, 0.9)})
    if len(levels) == 2 and levels[0] > 0:
        ax.contour((ex[:-1] + ex[1:]) / 2, (ey[:-1] + ey[1:]) / 2, density.T, levels, **look)
