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
FALLS = 1.1  # least power of the distance with which a tail falls off: at 1 it has no mass


def looked_into(testimony: Testimony, target: Target, q: Gaussian, log_evidence: float) -> Testimony:
    """With the mass that lies where the particles ended and beyond, and its part of a second moment, where these can be told.

    Cost: about 50 D gradients for each of a few particles.
    """
    u = testimony.u[testimony.excess > SURPRISE]
    if not 0 < len(u) <= MANY * len(testimony.u) or target.dim > MOST_DIM or not math.isfinite(log_evidence):
        return testimony
    try:
        mass, moment = (math.exp(min(held - log_evidence, 0.0)) for held in held_beyond(target, u, q))
        return dataclasses.replace(testimony, holds=mass, moment=moment)
    except OutOfBudget:
        return testimony


def held_beyond(target: Target, u: Float[np.ndarray, "n D"], q: Gaussian) -> tuple[float, float]:
    """log of the mass that lies beyond these points, each in the coordinate j in which it is farthest out, and of its second
    moment about q's mean, in q's variances.

    Definition: int p du_j over u_j beyond the point's: p(v) |v - m| / (k - 1) with Laplace's approximation of the marginal
                density of u_j at v and a little farther out, where it falls off like |v - m|^-k. Of the points on one side
                of one coordinate the largest is taken, sides and coordinates add up. Infinity where no conditional mode is
                reached from the nearest of them, or the density does not fall outwards at any.
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
                found.append(_tail(target, u[some], int(j), side * np.abs(own[some]), q.sd))
    return tuple(np.logaddexp.reduce(found, axis=0).tolist())


def _tail(target: Target, u: np.ndarray, j: int, z: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Of points on one side of coordinate j, at a distance of z sd, the nearest first."""
    b = np.delete(np.arange(target.dim), j)
    there = conditional_modes(target, u, b, scale)
    beyond = there.u.copy()
    beyond[:, j] += OUTWARD * np.sign(z) * scale[j]
    further = conditional_modes(target, beyond, b, scale)
    at, then = (f.value + 0.5 * b.size * LOG_2PI - 0.5 * np.linalg.slogdet(f.precision)[1] for f in (there, further))
    power = np.abs(z) * (at - then) / OUTWARD
    falls = there.reached & further.reached & (power > FALLS)
    if not (there.reached[0] and falls.any()):
        return math.inf, math.inf
    width = np.abs(z) / (np.where(falls, power, power[falls].min()) - 1)
    mass = (at + np.log(width * scale[j]))[there.reached]
    return float(mass.max()), float((mass + 2 * np.log(np.abs(z) + width)[there.reached]).max())
