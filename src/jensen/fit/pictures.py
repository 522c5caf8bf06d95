"""What a reader may see of the coordinates that were used, as plain numbers."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..algorithms.solver import Solution
from .view import View

MOST, POINTS = 3, 400
PLAIN = 0.1  # correlation of a coordinate's size with another coordinate, below which there is nothing to see
LOOKED_AT = 2000


def coordinates(view: View, own: Solution, home: Solution, names: list[str]) -> dict[str, Any]:
    """Pairs of coordinates in which the model's draws are a funnel, and the same draws in the coordinates that were used;
    {} where there are none of either.

    Definition: one pair for each of up to three coordinates i, with the coordinate s that |u_i - median| is most correlated
                with, by ranks: the strongest first.
    """
    if view.back is None or own.draws is None or home.draws is None or len(own.draws) < 10:
        return {}
    step = max(1, len(own.draws) // LOOKED_AT)
    before, after = np.asarray(home.draws, float)[::step], np.asarray(own.draws, float)[::step]
    if before.shape != after.shape or before.shape[1] < 2:
        return {}
    size = np.abs(before - np.median(before, 0))
    d = before.shape[1]
    strength = np.abs(np.nan_to_num(np.corrcoef(_ranks(size), _ranks(before), rowvar=False)[:d, d:]))
    np.fill_diagonal(strength, 0.0)
    with_whom = strength.argmax(1)
    best = [i for i in np.argsort(-strength.max(1))[:MOST] if strength[i, with_whom[i]] > PLAIN]
    some = slice(None, None, max(1, len(before) // POINTS))
    columns = lambda x, s, i: [_short(x[some, s]), _short(x[some, i])]
    pairs = [
        {
            "x": names[with_whom[i]], "y": names[i], "before": columns(before, with_whom[i], i),
            "after": columns(after, with_whom[i], i),
        }
        for i in best
    ]  # fmt: skip
    return {"coordinates": {"label": view.label.strip(), "pairs": pairs}} if pairs else {}


def _ranks(x: Float[np.ndarray, "n D"]) -> np.ndarray:
    return x.argsort(0).argsort(0)


def _short(x: np.ndarray) -> list[float]:
    return [float(f"{v:.5g}") for v in x]
