"""Is the density integrable along lines, as far as can be told by walking them?"""

from typing import Any

import numpy as np

from ..algorithms.low_rank import DENSE
from ..algorithms.target import Target

DISTANCES = np.array([1e4, 1e6])  # in sd of q
SLOPE = 1.05  # a density falling like 1 / t or slower has no integral along the line
FALLEN = 40.0  # nats below the centre from which a plateau carries no mass that matters
MOST_DIRECTIONS, FEWEST = 200, 16


def improper_direction(target: Target, q: Any, names: list[str]) -> str | None:
    """The parameter along which (or along whose principal direction) the density does not fall off, or None.

    Definition: the slope of -log p against log t between 1e4 and 1e6 sd is below 1.
    Cost:       4 evaluations a direction, 2 D directions (at most 200; where evaluations are dear 16, the widest).
    Raises:     OutOfBudget.
    """
    d, most = target.dim, target.fewer(MOST_DIRECTIONS, FEWEST) // 2
    axes = np.eye(min(d, most), d) * q.sd
    directions = [axes]
    if not q.diagonal and 1 < d <= DENSE:
        u, s, _ = np.linalg.svd(q.root)
        directions.append((u * s).T[:most])
    way = np.concatenate(directions)
    signs = np.array([1.0, -1.0])
    points = q.mean + way[:, None, None] * signs[:, None, None] * DISTANCES[:, None]
    value = target.value(points.reshape(-1, d), careful=True).reshape(len(way), 2, len(DISTANCES))
    centre = target.value(q.mean[None], careful=True)[0]
    with np.errstate(invalid="ignore"):
        slope = (value[..., -2] - value[..., -1]) / np.log(DISTANCES[-1] / DISTANCES[-2])
        flat = (slope < SLOPE) & (centre - value[..., -1] < FALLEN) & np.isfinite(value[..., -1])
    if not flat.any():
        return None
    i = int(np.argwhere(flat.any(1))[0, 0])
    return names[int(np.argmax(np.abs(way[i]) / q.sd))]
