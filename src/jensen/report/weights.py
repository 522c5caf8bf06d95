"""The importance weights of draws of q: those the verdict was made from."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..diagnostics.psis import importance_ess, psis
from ..diagnostics.verdict import KHAT_GOOD, KHAT_USABLE
from .draws import log_weights
from .style import FAINT, GREEN, INK, TRUTH, Q, blank, clean_y, legend_below_title, number


def draw_weights(figure: Any, fit: Any, compact: bool = False) -> None:
    """Global latents: the sorted weights and their fitted tail. A latent for each row: k-hat over the rows."""
    log_w = log_weights(fit)
    if not np.isfinite(log_w).any():
        words = "no draw from q has a finite importance weight:\nthe log density is not finite where q puts its mass"
        blank(figure.subplots(), words)
        return
    left, right = (figure.subplots(), None) if compact else figure.subplots(1, 2, width_ratios=(1.5, 1))
    (_khat_over_rows if log_w.ndim == 2 else _sorted_weights)(left, log_w)
    if right is not None:
        (_gaps if log_w.ndim == 2 else _jensen)(right, log_w)


def _sorted_weights(ax: Axes, log_w: np.ndarray) -> None:
    smoothed = psis(log_w)
    n, finite = log_w.size, log_w[np.isfinite(log_w)]
    top = finite.max()
    mean = top + np.log(np.exp(finite - top).sum() / n)
    raw = np.sort(finite - mean)[::-1]
    order = np.arange(1, n + 1)
    tail = int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))
    lightest = np.argmin(np.where(np.isfinite(log_w), log_w, np.inf))  # not in the tail: smoothing left it as it was
    corrected = np.sort(smoothed.log_weights - smoothed.log_weights[lightest] + log_w[lightest] - mean)[::-1][:tail]
    ess = importance_ess(smoothed.log_weights)
    shown = lambda a: np.exp(np.clip(a, -30, 80))
    ax.loglog(order[: raw.size], shown(raw), ".", ms=4, color=Q, label=f"the {n:,} draws from q", rasterized=True)
    ax.loglog(order[:tail], shown(corrected), color=TRUTH, lw=1.4, label="fitted Pareto tail")
    ax.axhline(1, color=FAINT, lw=0.9, ls=":")
    ax.annotate("every draw would be here if q were exact", (1, 1), (2, -11), textcoords="offset points", fontsize=7.5,
                color=FAINT)  # fmt: skip
    ax.set_ylim(max(1e-4, shown(raw[-1]) / 2), shown(max(raw[0], corrected[0])) * 2.5)
    level = "good" if smoothed.khat <= KHAT_GOOD else "usable" if smoothed.khat <= KHAT_USABLE else "too heavy"
    ax.set_title(f"Importance weights: k-hat {number(smoothed.khat)}, {level}")
    ax.set_xlabel("rank of the draw, heaviest first")
    ax.set_ylabel("weight / mean weight")
    legend_below_title(ax, loc="lower left")
    zero = f"\n{n - raw.size:,} draws with weight 0" if raw.size < n else ""
    _note(ax, f"worth {ess:,.0f} exact draws\nof {n:,} (ESS {ess / n:.0%}){zero}")


def _note(ax: Axes, words: str) -> None:
    ax.text(0.99, 0.98, words, transform=ax.transAxes, ha="right", va="top", fontsize=8.5, color=INK)


def _khat_over_rows(ax: Axes, log_w: np.ndarray) -> None:
    smoothed = [psis(column) for column in log_w.T]
    khat = np.array([s.khat for s in smoothed])
    share = np.mean([importance_ess(s.log_weights) for s in smoothed]) / len(log_w)
    clipped = np.clip(np.nan_to_num(khat, nan=2.0), -0.5, 2.0)
    edges = np.arange(np.floor(clipped.min() * 10) / 10, max(clipped.max(), 0.8) + 0.1001, 0.1)
    colour = [GREEN if e < KHAT_GOOD - 1e-9 else Q if e < KHAT_USABLE - 1e-9 else TRUTH for e in edges[:-1]]
    ax.bar(edges[:-1], np.histogram(clipped, edges)[0], 0.092, align="edge", color=colour)
    ax.axvline(KHAT_USABLE, color=INK, ls="--", lw=1)
    ax.annotate("want fewer than 5%\nto the right", (KHAT_USABLE, 0.8), (4, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", fontsize=8)  # fmt: skip
    heavy = float((khat > KHAT_USABLE).mean())
    ax.set_title(f"k-hat of {khat.size:,} rows: {heavy:.0%} are above {KHAT_USABLE}")
    _note(ax, f"reweighting keeps {share:.0%}\nof a row's draws (ESS)")
    ax.set_xlabel("k-hat of one row's importance weights")
    ax.set_ylabel("rows")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _jensen(ax: Axes, log_w: np.ndarray) -> None:
    """Jensen's inequality at work: the mean of the logarithms lies below the logarithm of the mean."""
    finite = log_w[np.isfinite(log_w)]
    elbo, top = finite.mean(), finite.max()
    evidence = top + np.log(np.exp(finite - top).sum() / log_w.size)
    clean_y(ax)
    low, high = np.quantile(finite, 0.005), max(np.quantile(finite, 0.999), evidence)
    spread = max(high - low, 1e-3)
    ax.hist(finite, 40, range=(low - 0.05 * spread, high + 0.05 * spread), color=Q, alpha=0.35)
    ax.axvline(elbo, ymax=0.78, color=INK, lw=1.4, label=f"their mean: ELBO {number(elbo)}")
    ax.axvline(evidence, ymax=0.78, color=TRUTH, ls="--", lw=1.4, label=f"log mean weight: evidence {number(evidence)}")
    ax.margins(y=0.3)
    ax.set_title("The closer the two lines, the better")
    ax.set_xlabel("log-weight of a draw (nats)")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    legend_below_title(ax, loc="upper left")


def _gaps(ax: Axes, log_w: np.ndarray) -> None:
    """Estimated log-likelihood less ELBO, row by row: what q(z | x) loses."""
    top = log_w.max(0)
    gap = top + np.log(np.exp(log_w - top).mean(0)) - log_w.mean(0)
    gap = gap[np.isfinite(gap)]
    if not gap.size:
        blank(ax, "no row has finite weights only")
        return
    ax.hist(gap, 25, range=(0, max(np.quantile(gap, 0.99), 1e-3)), color=Q, alpha=0.5)
    ax.axvline(gap.mean(), color=INK, lw=1.4, label=f"mean {number(gap.mean())} nats")
    ax.set_title("Loss of a row: the smaller, the better")
    ax.set_xlabel("log-likelihood less ELBO (nats)")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend_below_title(ax, loc="upper right")
