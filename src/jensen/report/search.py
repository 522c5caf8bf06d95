"""The search for modes: where was looked, what was found, and what would have been seen."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .style import FAINT, GREEN, INK, TRUTH, Q, shared_legend

RINGS = (3, 10, 100, 1000)  # sd
COLOURS = (Q, TRUTH, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#7f5f00", "#5e3c99")
MOST_BARS = 12


def draw_search(figure: Any, fit: Any, compact: bool = False) -> None:
    """A map of the starts and the modes; what each mode holds; the chance that another one would have been seen."""
    search = fit.diagnosis.details["search"]
    if compact:
        _map(figure.subplots(), search["picture"])
        return
    left, right = figure.subfigures(1, 2, width_ratios=(1.2, 1))
    ax = left.subplots()
    _map(ax, search["picture"])
    above, below = right.subplots(2, 1)
    _masses(above, search["picture"])
    _chances(below, search["forecast"])
    shared_legend(left, *ax.get_legend_handles_labels())


def _logarithmic(x: np.ndarray) -> np.ndarray:
    """Distances from 0 as log(1 + r), directions kept."""
    r = np.linalg.norm(x, axis=1, keepdims=True)
    return x * np.log1p(r) / np.maximum(r, 1e-300)


def _map(ax: Axes, picture: dict) -> None:
    starts, modes = (np.asarray(picture[k], float).reshape(len(picture[k]), -1) for k in ("starts", "modes"))
    if starts.shape[1] < 2:  # one coordinate: no second direction
        starts, modes = (np.column_stack([x, np.zeros(len(x))]) for x in (starts, modes))
        starts[:, 1] = np.random.default_rng(0).uniform(-0.5, 0.5, len(starts))
    led = np.asarray(picture["led"])
    x, m = _logarithmic(starts), _logarithmic(modes)
    none = led < 0
    if none.any():
        ax.scatter(*x[none].T, s=5, color=FAINT, alpha=0.5, lw=0, label="start that led to no mode")
    for k in np.unique(led[~none]):
        ax.scatter(*x[led == k].T, s=6, color=COLOURS[k % len(COLOURS)], alpha=0.6, lw=0)
    reach = float(np.abs(np.concatenate([x, m])).max()) * 1.05
    for r in RINGS:
        if np.log1p(r) < reach:
            ax.add_patch(_circle(np.log1p(r)))
            ax.annotate(
                f"{r} sd", (0, np.log1p(r)), (0, 1), textcoords="offset points", fontsize=7, color=FAINT, ha="center"
            )
    for k, at in enumerate(m):
        new = picture["new"][k]
        label = "mode that the search added" if new else "mode known before"
        look = {"s": 200, "marker": "*"} if new else {"s": 80, "marker": "D"}
        first = picture["new"].index(new) == k
        ax.scatter(
            *at, color=COLOURS[k % len(COLOURS)], edgecolor="white", zorder=4, label=label if first else None, **look
        )
        ax.annotate(
            str(k + 1), at, (5, 5), textcoords="offset points", fontsize=8, color=INK, fontweight="bold", zorder=5
        )
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title("Where was looked")


def _circle(radius: float) -> Any:
    from matplotlib.patches import Circle

    return Circle((0, 0), radius, fill=False, color=FAINT, lw=0.6, ls=":", zorder=0)


def _masses(ax: Axes, picture: dict) -> None:
    share = np.asarray(picture["shares"])
    order = np.argsort(-share)[:MOST_BARS]
    ax.barh(range(len(order)), share[order], 0.6, color=[COLOURS[k % len(COLOURS)] for k in order])
    ax.set_yticks(range(len(order)), [str(k + 1) for k in order])
    ax.set_ylim(max(len(order), 4) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_title("What each mode holds, about")


def _chances(ax: Axes, forecast: list) -> None:
    width, chance = np.array(forecast, float).T
    ax.plot(width, chance, "o-", color=Q, ms=4)
    ax.set_ylim(-0.03, 1.05)
    ax.set_xlim(min(0.3, width.min() - 0.03), 1.03)
    ax.set_xlabel("how wide, relative to the narrowest mode found")
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.set_title("Chance to have seen another mode (10%)")
