"""Variance against time a step, one panel for each point of the fit."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..report.style import FAINT, GREEN, INK, PALE, TRUTH, Figure, Q, blank, minus, new_figure, styled, text
from .words import seconds

if TYPE_CHECKING:
    from .result import GradientLab, Reading

    Mark = tuple[Reading, float, bool]

MARKS = "osD^vPX"
NAMED = 14  # names in a panel, at most
REACH = 1e8  # variances smaller than the largest by more stand at the edge, with the zeros


def plot(lab: "GradientLab") -> Figure:
    """Left and down is better; along a grey line the two make up for each other. Hollow: biased. Green: recommended."""
    with styled(), np.errstate(all="ignore"):
        points = lab.points or [""]
        figure = new_figure(6.2 * len(points), 5.4)
        axes = np.atleast_1d(figure.subplots(1, len(points)))
        plans = list(dict.fromkeys(r.plan for r in lab.readings))
        times = [r.seconds for r in lab.readings] or [1e-6]
        marks = []
        for ax, point in zip(axes, points, strict=True):
            ax.set_title(
                "At the start" if point == "start" else "After a short fit" if point == "fit" else f"At {point}"
            )
            here = [r for r in lab.readings if r.point == point]
            marks.append(_panel(ax, lab, here, plans, (min(times) / 1.7, max(times) * 2.5)))
        axes[0].set_ylabel("variance of one step's gradient")
        _legend(figure, lab, plans)
        figure.draw_without_rendering()  # where things lie, for the names
        for ax, found in zip(axes, marks, strict=True):
            _names(ax, lab, found)
        return figure


def _panel(ax: Axes, lab: "GradientLab", readings: "list[Reading]", plans: list[str], span: tuple) -> "list[Mark]":
    """Draws the marks; returns where they are, those to be named first."""
    if not readings:
        blank(ax, "no estimator could be measured")
        return []
    shown = _best_plans(lab, readings)
    ax.set_xscale("log")
    ax.set_yscale("log")
    top = max(max(r.variance for r in readings), 1e-300)
    positive = [r.variance for r in readings if r.variance > top / REACH]
    low = min(positive, default=top)
    edge = low / 4 if len(positive) < len(readings) else None  # where those without variance stand
    height = lambda r: r.variance if r.variance > top / REACH else (edge or low)
    ax.set_xlim(*span)
    ax.set_ylim((edge or low) / 2.2, top * 2.2)
    _trade_lines(ax)
    others = [r for r in readings if r not in shown]
    for r in [*others, *reversed(shown)]:
        best, mine = (r.estimator, r.plan) == lab.best_name, r in shown
        colour = GREEN if best else TRUTH if not r.unbiased else Q if mine else PALE
        ax.plot(
            r.seconds, height(r), MARKS[plans.index(r.plan) % len(MARKS)], color=colour, zorder=4 if mine else 3,
            ms=9 if best else 6.5 if mine else 4, mfc=colour if r.unbiased else "white", mew=1.3,
            alpha=1.0 if mine else 0.6,
        )  # fmt: skip
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: seconds(v).replace("us", "µs")))
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if span[1] < 1000 * span[0] else (1.0,)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    if edge is not None:
        _mark_zero(ax, edge)
    ax.set_xlabel("time a step")
    return [(r, height(r), r in shown) for r in [*shown, *others]]


def _best_plans(lab: "GradientLab", readings: "list[Reading]") -> "list[Reading]":
    """One reading for each estimator: with its best plan. The best estimators first."""
    first: dict[str, str] = {}
    for name, plan in lab.ranked():
        first.setdefault(name, plan)
    by_key = {(r.estimator, r.plan): r for r in readings}
    return [by_key[k] for k in first.items() if k in by_key]


def _trade_lines(ax: Axes) -> None:
    """Where variance x time is the same."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    decades = np.arange(np.floor(np.log10(x0 * y0)), np.ceil(np.log10(x1 * y1)) + 1)
    for product in 10.0 ** decades[:: max(1, len(decades) // 8)]:
        ax.plot(
            [x0, x1],
            [product / x0, product / x1],
            color=FAINT,
            lw=0.6,
            alpha=0.35,
            zorder=1,
            scalex=False,
            scaley=False,
        )


def _mark_zero(ax: Axes, edge: float) -> None:
    """The lowest tick says 0."""
    ticks = [t for t in LogLocator(numticks=7).tick_values(*ax.get_ylim()) if 1.5 * edge < t < ax.get_ylim()[1]]
    power = lambda t: minus(f"{t:g}") if 1e-3 <= t < 1e4 else f"$10^{{{int(np.round(np.log10(t)))}}}$"
    ax.set_yticks([edge, *ticks], ["0", *map(power, ticks)])
    ax.axhline(edge * 1.7, color=FAINT, lw=0.8, ls=(0, (2, 3)))


def _names(ax: Axes, lab: "GradientLab", marks: "list[Mark]") -> None:
    """A name beside each mark, moved until it hides no other name and no named mark."""
    inch = ax.figure.dpi  # pyright: ignore[reportAttributeAccessIssue]
    to_inches = lambda x, y: ax.transData.transform((x, y)) / inch
    named = [(r, y) for r, y, mine in marks if mine][:NAMED]
    boxes = [(*(to_inches(r.seconds, y) - 0.06), *(to_inches(r.seconds, y) + 0.06)) for r, y in named]
    frame = ax.get_window_extent()
    for r, y in named:
        name = text(r.estimator, 34)
        x_in, y_in = to_inches(r.seconds, y)
        best = (r.estimator, r.plan) == lab.best_name
        width = (0.068 if best else 0.061) * len(name)

        def box(dx: float, dy: float) -> tuple[float, float, float, float]:
            left = x_in + dx if dx > 0 else x_in + dx - width
            return left, y_in + dy - 0.065, left + width, y_in + dy + 0.065

        def free(dx: float, dy: float) -> bool:
            a, b, c, d = box(dx, dy)
            inside = (
                a > frame.x0 / inch and c < frame.x1 / inch + 0.1 and b > frame.y0 / inch and d < frame.y1 / inch + 0.1
            )
            return inside and all(c < left or a > right or d < down or b > up for left, down, right, up in boxes)

        tries = [(dx, s * 0.07 * k) for k in range(24) for dx in (0.1, -0.1, 0.35, -0.35, 0.7, -0.7) for s in (1, -1)]
        tries.sort(key=lambda t: abs(t[0]) + abs(t[1]))
        dx, dy = next((t for t in tries if free(*t)), (0.1, 0.0))
        boxes.append(box(dx, dy))
        far = abs(dx) > 0.2 or abs(dy) > 0.16
        ax.annotate(
            name, (r.seconds, y), (72 * dx, 72 * dy), textcoords="offset points", ha="left" if dx > 0 else "right",
            va="center", fontsize=7.5, color=INK, fontweight="bold" if best else "normal", zorder=5,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkA": 0, "shrinkB": 2} if far else None,
        ).set_in_layout(False)  # fmt: skip


def _legend(figure: Figure, lab: "GradientLab", plans: list[str]) -> None:
    """What colours mean; under it, what shapes mean."""
    dot = lambda marker, colour, face=None: Line2D([], [], marker=marker, color=colour, mfc=face or colour, ls="")
    several = len(plans) > 1
    rows = [(dot("o", Q), "unbiased, with its best plan" if several else "unbiased")]
    rows += [(dot("o", PALE), "with another plan")] if several else []
    rows += [(dot("o", TRUTH, "white"), "biased")] if any(not r.unbiased for r in lab.readings) else []
    rows += [(dot("o", GREEN), "recommended")] if lab.best_name is not None else []
    rows += [(Line2D([], [], color=FAINT, lw=0.8), "equal variance × time")]
    rows += [(dot(MARKS[i % len(MARKS)], FAINT), f"{p} draws") for i, p in enumerate(plans)] if several else []
    handles, labels = zip(*rows, strict=True)
    columns = min(len(rows), max(2, int(figure.get_size_inches()[0] // 2.3)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.8, columnspacing=1.4)
