"""Simulation-based calibration as a picture: how the ranks of true values depart from uniform."""

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostics.uniformity import envelope
from ..errors import OptionError, explain
from .style import FAINT, PALE, TRUTH, Figure, Q, blank, new_figure, shared_legend, styled, text

if TYPE_CHECKING:
    from ..diagnostics.calibration import Calibration

PANELS = 12


def plot_calibration(calibration: "Calibration", names: list[str] | None = None) -> Figure:
    """A panel a coordinate: empirical distribution of the ranks less the uniform one, in its simultaneous envelope.

    Above zero on the left and below on the right: the posterior is too narrow; the other way round: too wide; above
    zero throughout: its draws lie too high.
    Raises:  OptionError for a name that is no coordinate.
    """
    known = list(calibration.ranks)
    unknown = [n for n in names or () if n not in known]
    if unknown:
        because, instead = "a panel shows the ranks of one coordinate", f"some of {', '.join(known[:PANELS])}"
        raise OptionError(explain(f"plot({names!r:.60})", f"{unknown[0]!r} is none of them", because, instead))
    if names is None:
        worst = sorted(known, key=lambda n: min(calibration.p_values[n], calibration.vsbc.get(n, 1.0)))[:PANELS]
        names = [n for n in known if n in worst]
    columns = min(4, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    with styled():
        figure = new_figure(max(5.0, 2.9 * columns), 1.0 + 2.2 * rows)
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax in axes[len(names) :]:
            ax.axis("off")
        for ax, name in zip(axes, names, strict=False):
            _panel(ax, calibration, name)
        if names and axes[0].get_legend_handles_labels()[0]:
            shared_legend(figure, *axes[0].get_legend_handles_labels())
        left = f" ({len(known) - len(names)} more left out)" if len(names) < len(known) else ""
        figure.suptitle(f"Do the posteriors hold the truth as often as they say?{left}", x=0.01, ha="left")
    return figure


def _panel(ax, calibration: "Calibration", name: str) -> None:
    ranks, states = calibration.ranks[name], calibration.n_ranks
    if not ranks.size:
        blank(ax, "no fit succeeded")
        return
    band = envelope(ranks.size, states, calibration.prob)
    label = f"{calibration.prob:.0%} of exact posteriors lie within"
    ax.fill_between(
        band.points, band.lower - band.points, band.upper - band.points, step="mid", color=PALE, label=label
    )
    z = np.arange(1, states) / states
    below = np.searchsorted(np.sort(ranks), np.arange(1, states), side="left") / ranks.size
    out = calibration.p_values[name] < 1 - calibration.prob
    ax.plot(z, below - z, color=TRUTH if out else Q, label=f"{ranks.size} simulations")
    ax.axhline(0, color=FAINT, lw=0.9, ls=":")
    ax.set_title(f"{text(name, 20)}   p = {calibration.p_values[name]:.2g}")
    ax.set_xlabel("rank of the true value among draws")
    if ax.get_subplotspec().is_first_col():
        ax.set_ylabel("share below, less uniform")
