"""Particles that ended where q has too little density: how much mass can lie there?"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from ..algorithms.budget import OutOfBudget
from ..algorithms.conditional import conditional_modes
from ..algorithms.gaussian import LOG_2PI, Gaussian
from ..algorithms.target import Target
from .witness import MANY, SURPRISE, Testimony

MOST_DIM = 200  # above, Hessians cost more than the particles did
EACH = 4  # particles that are looked at, of those on one side of one coordinate
OUTWARD = 0.5  # sd, to where a marginal density is looked at again
FALLS = 0.1  # nats an sd, at least: else it is no tail


def looked_into(testimony: Testimony, target: Target, q: Gaussian, log_evidence: float) -> Testimony:
    """With the mass that lies where the particles ended and beyond, where it can be told.

    Cost: about 50 D gradients for each of a few particles.
    """
    u = testimony.u[testimony.excess > SURPRISE]
    if not 0 < len(u) <= MANY * len(testimony.u) or target.dim > MOST_DIM or not math.isfinite(log_evidence):
        return testimony
    try:
        return dataclasses.replace(testimony, holds=math.exp(min(held_beyond(target, u, q) - log_evidence, 0.0)))
    except OutOfBudget:
        return testimony


def held_beyond(target: Target, u: Float[np.ndarray, "n D"], q: Gaussian) -> float:
    """log of the mass that lies beyond these points, each in the coordinate j in which it is farthest out.

    Definition: int p du_j over u_j beyond the point's: Laplace's approximation of the marginal density of u_j there, and a
                little farther out, and an exponential through both. Of the points on one side of one coordinate the largest
                is taken, sides and coordinates add up. Infinity where no conditional mode is reached from a point, or the
                density does not fall outwards.
    Why:        a particle may end where p is far above q and hold next to nothing: the far neck of a funnel is narrow in
                all the coordinates that its scale sets. Given the scale they are nearly Gaussian.
    Raises: OutOfBudget.
    """
    z = (u - q.mean) / q.sd
    farthest = np.abs(z).argmax(1)
    own = z[np.arange(len(u)), farthest]
    found = []
    for j in np.unique(farthest):
        for side in (-1.0, 1.0):
            rows = np.flatnonzero((farthest == j) & (own * side > 0))
            rows = rows[np.argsort(np.abs(own[rows]))]
            some = rows[np.unique(np.linspace(0, len(rows) - 1, EACH).astype(int))] if len(rows) else rows
            if len(some):
                found.append(_tail(target, u[some], int(j), side * q.sd[j], q.sd))
    return float(np.logaddexp.reduce(found))


def _tail(target: Target, u: np.ndarray, j: int, sd: float, scale: np.ndarray) -> float:
    b = np.delete(np.arange(target.dim), j)
    there = conditional_modes(target, u, b, scale)
    beyond = there.u.copy()
    beyond[:, j] += OUTWARD * sd
    further = conditional_modes(target, beyond, b, scale)
    if not (there.reached & further.reached).all():
        return math.inf
    at, then = (f.value + 0.5 * b.size * LOG_2PI - 0.5 * np.linalg.slogdet(f.precision)[1] for f in (there, further))
    slope = (at - then) / OUTWARD
    return float((at + np.log(abs(sd) / slope)).max()) if (slope > FALLS).all() else math.inf
