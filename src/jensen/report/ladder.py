"""The rungs that were tried: what each took, what the checks said of it, and whether they agree on the evidence."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from .rungs import taken
from .style import FAINT, INK, TRUTH, VERDICTS, minus, number, shared_legend, text

BAR, BELOW = 0.36, 0.25  # height of a bar; how far below its middle the numbers are written
Z90 = 1.645
LONG = 24  # letters of a name, for a narrow figure
NARROWEST = 0.5  # nats to each side: rungs that agree shall look so


def ladder_size(fit: Any) -> tuple[float, float]:
    return 9.5, 1.15 + 0.62 * max(len(fit.trail), 1)


def draw_ladder(figure: Any, fit: Any, compact: bool = False) -> None:
    """A row for each rung, in the order of trial: time, verdict, k-hat and evaluations; and its estimate of the evidence."""
    if compact:
        _bars(figure.subplots(), fit, compact=True)
        return
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1), sharey=True)
    _bars(left, fit)
    _evidence(right, fit)
    right.tick_params(left=False)
    shared_legend(figure, *right.get_legend_handles_labels())


def _bars(ax: Axes, fit: Any, compact: bool = False) -> None:
    chosen = taken(fit)
    seconds = [a.seconds if np.isfinite(a.seconds) else 0.0 for a in fit.trail]
    ax.barh(range(len(seconds)), seconds, BAR, color=[VERDICTS.get(a.verdict, FAINT) for a in fit.trail])
    edge = blended_transform_factory(ax.transAxes, ax.transData)
    for i, attempt in enumerate(fit.trail):
        words = _numbers(attempt, compact)
        ax.text(0.01, i + BELOW, words, transform=edge, va="top", fontsize=7 if compact else 7.5, color=INK)
    ax.set_yticks(range(len(seconds)), [_name(a.family, i == chosen, compact) for i, a in enumerate(fit.trail)])
    for i, label in enumerate(ax.get_yticklabels()):
        label.set_fontweight("bold" if i == chosen else "normal")
    ax.set_ylim(len(seconds) - 0.35, -0.45)
    ax.set_xlim(0, 1.08 * max([*seconds, 1e-3]))
    ax.tick_params(axis="y", length=0)
    ax.set_title("Time each method took")
    ax.set_xlabel("seconds")
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _numbers(attempt: Any, compact: bool) -> str:
    parts = [attempt.verdict, f"k-hat {number(attempt.khat)}"]
    parts += [f"log evidence {number(attempt.log_evidence)}"] if compact else [f"{attempt.evaluations:,} evaluations"]
    return ", ".join(parts)


def _name(rung: str, is_taken: bool, compact: bool) -> str:
    """On lines of its parts, with a mark if it was taken."""
    lines = text(rung, 60).replace(" + ", "\n+ ")
    lines = lines.replace("non-centred ", "non-centred\n") if compact and len(rung) > LONG else lines
    return f"▸ {lines}" if is_taken else lines


def _evidence(ax: Axes, fit: Any) -> None:
    """Each rung's estimate, and the result's with its interval."""
    chosen, d = taken(fit), fit.diagnosis
    values = np.array([a.log_evidence for a in fit.trail], float)
    final, half = d.log_evidence, Z90 * d.log_evidence_se
    low, high = _limits([*values, final])
    if np.isfinite(final):
        if np.isfinite(half):
            ax.axvspan(final - half, final + half, color=TRUTH, alpha=0.15, lw=0, label="its 90% interval")
        ax.axvline(final, color=TRUTH, ls="--", lw=1.1, label=f"of the result: {number(final)}")
    edge = blended_transform_factory(ax.transAxes, ax.transData)
    for i, (value, attempt) in enumerate(zip(values, fit.trail, strict=True)):
        if not np.isfinite(value):
            ax.text(0.5, i, f"log evidence {number(value)}", transform=edge, ha="center", va="center", color=FAINT)
            continue
        colour = VERDICTS.get(attempt.verdict, FAINT)
        ax.plot(value, i, "D" if i == chosen else "o", color=colour, ms=7 if i == chosen else 6, zorder=3)
        share = (value - low) / (high - low)
        side = "left" if share < 0.15 else "right" if share > 0.85 else "center"
        ax.annotate(number(value), (value, i), (0, -9), textcoords="offset points", ha=side, va="top", fontsize=7.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    ax.set_xlim(low, high)
    ax.set_title("Do they agree on the log evidence?" if len(values) > 1 else "Log evidence")
    ax.set_xlabel("log evidence (nats)")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: minus(f"{x:,.6g}")))


def _limits(values: list[float]) -> tuple[float, float]:
    """All of them, and never so narrow that noise looks like disagreement."""
    finite = [v for v in values if np.isfinite(v)] or [0.0]
    middle, half = (max(finite) + min(finite)) / 2, (max(finite) - min(finite)) / 2
    half = max(1.2 * half, NARROWEST)
    return middle - half, middle + half
