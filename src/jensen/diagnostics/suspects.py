"""Particles that ended where q has too little density: how much mass can lie there?"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

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
FEW = 4096  # draws, from which moments in the model's coordinates are taken
SEEN = 0.5  # of what lies beyond a point, from which on draws that are there account for it
PATIENT = 40  # Newton steps, from where a particle stayed: far from any conditional mode
FALLS = 1.1  # least power of the distance with which a tail falls off: at 1 it has no mass


class Known(NamedTuple):
    """Draws of what is judged.

    weights: None of draws that count alike.   back: from their coordinates to those of the model; None: they are the same.
    """

    u: Float[np.ndarray, "n D"]
    weights: Float[np.ndarray, " n"] | None
    back: Callable[[np.ndarray], np.ndarray] | None

    def beyond(self, tail: "Tail", q: Gaussian) -> float:
        """The share of them that lies there."""
        j = tail.coordinate
        there = np.sign(tail.at) * (self.u[:, j] - q.mean[j]) > abs(tail.at) * q.sd[j]
        return float(np.average(there, weights=self.weights))

    def distance(self, points: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        """Largest distance of each from them, in their sd, in a coordinate of the model."""
        home, rows = self.back or np.asarray, slice(None, None, max(1, len(self.u) // FEW))
        some = home(self.u[rows])
        w = np.ones(len(some)) if self.weights is None else self.weights[rows] + 1e-300
        mean = np.average(some, 0, w)
        sd = np.sqrt(np.average((some - mean) ** 2, 0, w)) + 1e-300
        return np.abs((home(points) - mean) / sd).max(1)


def looked_into(testimony: Testimony, target: Target, q: Gaussian, log_evidence: float, draws: Known) -> Testimony:
    """With the mass where the particles ended, and beyond, that these draws miss, and its part of a second moment, where these
    can be told.

    Cost: about 50 D gradients for each of a few particles.
    """
    u = testimony.u[testimony.excess > SURPRISE]
    if not 0 < len(u) <= MANY * len(testimony.u) or target.dim > MOST_DIM or not math.isfinite(log_evidence):
        return testimony
    try:
        tails = held_beyond(target, u, q)
    except OutOfBudget:
        return testimony
    held = np.array([math.exp(min(t.log_mass - log_evidence, 0.0)) for t in tails])
    own = np.array([draws.beyond(t, q) for t in tails])
    missed = np.where(own < SEEN * held, held - own, 0.0)
    moment, some = 0.0, [(m, t.typical) for m, t in zip(missed, tails, strict=True) if m > 0]
    if any(at is None for _, at in some):
        moment = math.inf
    elif some:
        moment = float(np.array([m for m, _ in some]) @ draws.distance(np.array([at for _, at in some])) ** 2)
    return dataclasses.replace(testimony, holds=float(missed.sum()), moment=moment)


class Tail(NamedTuple):
    """What lies beyond `at` (in sd of q, from its mean) in one coordinate: log of its mass, and a point typical of it."""

    coordinate: int
    at: float
    log_mass: float
    typical: Float[np.ndarray, " D"] | None


def held_beyond(target: Target, u: Float[np.ndarray, "n D"], q: Gaussian) -> list[Tail]:
    """What lies beyond these points, each in the coordinate j in which it is farthest out: for each side of each coordinate
    beyond the nearest of its points.

    Definition: int p du_j over u_j beyond the point's: p(v) |v - m| / (k - 1) with Laplace's approximation of the marginal
                density of u_j at v and a little farther out, where it falls off like |v - m|^-k: the largest over the points.
                Infinity where no conditional mode is reached from the nearest, or the density does not fall outwards at any.
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
            if len(rows):
                rows = rows[np.argsort(np.abs(own[rows]))]
                some = rows[np.unique(np.linspace(0, len(rows) - 1, EACH).astype(int))]
                found.append(_tail(target, u[some], int(j), own[some], q.sd))
    return found


def _tail(target: Target, u: np.ndarray, j: int, z: np.ndarray, scale: np.ndarray) -> Tail:
    """Of points on one side of coordinate j, at a distance of z sd, the nearest first."""
    b = np.delete(np.arange(target.dim), j)
    there = conditional_modes(target, u, b, scale, PATIENT)
    beyond = there.u.copy()
    beyond[:, j] += OUTWARD * np.sign(z) * scale[j]
    further = conditional_modes(target, beyond, b, scale, PATIENT)
    at, then = (f.value + 0.5 * b.size * LOG_2PI - 0.5 * np.linalg.slogdet(f.precision)[1] for f in (there, further))
    power = np.abs(z) * (at - then) / OUTWARD
    falls = there.reached & further.reached & (power > FALLS)
    if not (there.reached[0] and falls.any()):
        return Tail(j, z[0], math.inf, None)
    width = np.abs(z) / (np.where(falls, power, power[falls].min()) - 1)
    mass = np.where(there.reached, at + np.log(width * scale[j]), -np.inf)
    typical = there.u[mass.argmax()].copy()
    typical[j] += (np.sign(z) * width * scale[j])[mass.argmax()]
    return Tail(j, z[0], float(mass.max()), typical)
