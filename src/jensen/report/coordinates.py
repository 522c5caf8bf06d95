"""The coordinates that were used in place of the model's, and the walls at which a density ends."""

from typing import Any

import numpy as np

from .style import FAINT, TRUTH, Q, clean_y, shared_legend, text

BINS = 40


def draw_coordinates(figure: Any, fit: Any, compact: bool = False) -> None:
    """The same draws twice: in the model's coordinates above, in those that were used below."""
    pairs = fit.diagnosis.details["coordinates"]["pairs"][: 1 if compact else None]
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for column, pair in enumerate(pairs):
        for row, when in enumerate(("before", "after")):
            ax, (x, y) = axes[row, column], pair[when]
            ax.scatter(x, y, s=6, color=FAINT if row == 0 else Q, alpha=0.6, lw=0)
            ax.set_xlabel(text(pair["x"]))
            ax.set_ylabel(text(pair["y"]) if row == 0 else text(f"{pair['y']}, standardised"))
    axes[0, 0].set_title("As the model has them")
    axes[1, 0].set_title("As they were sampled")


def coordinates_size(fit: Any) -> tuple[float, float]:
    return 3.2 * max(len(fit.diagnosis.details["coordinates"]["pairs"]), 2), 5.2


def draw_walls(figure: Any, fit: Any, compact: bool = False) -> None:
    """Draws against the walls: a histogram for each flat one, a map where walls are curved."""
    panels = fit.diagnosis.details["walls"]["pictures"][: 1 if compact else None]
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if "y" in panel:
            ax.scatter(panel["x"], panel["y"], s=5, color=Q, alpha=0.5, lw=0)
            ax.set_ylabel(text(panel["label_y"]))
        else:
            x = np.asarray(panel["x"])
            ax.hist(x, BINS, color=Q, alpha=0.7)
            for i, end in enumerate(panel["ends"]):
                ax.axvline(end, color=TRUTH, lw=2, label="the density ends here" if i == 0 else None)
            room = 0.08 * max(np.ptp([*x, *panel["ends"]]), 1e-300)
            ax.set_xlim(min(x.min(), *panel["ends"]) - room, max(x.max(), *panel["ends"]) + room)
            clean_y(ax)
        ax.set_xlabel(text(panel["label"], 40))
    first = next((ax for ax in figure.axes if ax.get_legend_handles_labels()[1]), None)
    if first is not None:
        shared_legend(figure, *first.get_legend_handles_labels())


def walls_size(fit: Any) -> tuple[float, float]:
    return 3.2 * max(len(fit.diagnosis.details["walls"]["pictures"]), 2), 3.2
