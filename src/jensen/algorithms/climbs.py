"""Many ascents at once, each in coordinates of its own, each given up as soon as it is known where it leads."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from .gaussian import Gaussian
from .target import BLOCK

WAITING, CLIMBING, ENDED, LATE = -1, -2, -3, -4  # states; from 0 on: what `known` said
MEMORY = 8
MOST_STEPS = 60
ARMIJO = 1e-4
SMALL = 1e-4  # nats: two gains in turn below this are the end
STRIDE = 4.0  # by which steps grow where the density is not concave: a heavy tail is left in few of them
REFUSALS = 10
CONCAVE = 1e-10
FAR = 1e30

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Known = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Climbs:
    """Limited-memory BFGS from n starts, 64 of them side by side.

    Definition: each climbs in z = L^-1 (u - m) of the Gaussian that `frames[which]` names, from the identity as inverse
                Hessian; steps are halved twice where refused, and grow where the density is not concave.
    Arguments:  evaluate: (n, D) -> values and gradients.   u, value, g: the starts.
                known: (u, values, gradients) -> a number from 0 on where an ascent may stop, -1 where not.
                most: evaluations.
    Attributes: state: for each start WAITING (not begun), ENDED (a maximum, or a slope that gives no more), LATE (not
                done after 60 steps), or what `known` said.   u, value, g: where it is.
    """

    def __init__(
        self, evaluate: Evaluate, u: Float[np.ndarray, "n D"], value: np.ndarray, g: np.ndarray,
        frames: Sequence[Gaussian], which: np.ndarray, known: Known | None, most: int,
    ):  # fmt: skip
        self.evaluate, self.frames, self.which, self.known = evaluate, frames, which, known
        self.u, self.value, self.g = u.copy(), value.copy(), g.copy()
        n, d = u.shape
        self.state = np.full(n, WAITING)
        self.z, self.slope = self._each("whiten", u), self._each("pull", g)
        self.s, self.y, self.rho = np.zeros((n, MEMORY, d)), np.zeros((n, MEMORY, d)), np.zeros((n, MEMORY))
        self.step, self.refused, self.small, self.steps = np.ones(n), *np.zeros((3, n), int)
        while most > 0:
            free = BLOCK - int((self.state == CLIMBING).sum())
            self.state[np.flatnonzero(self.state == WAITING)[:free]] = CLIMBING
            live = np.flatnonzero(self.state == CLIMBING)
            if not len(live):
                break
            self._advance(live)
            most -= len(live)
        self.state[self.state == CLIMBING] = LATE

    def _each(self, do: str, x: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
        """`whiten`, `apply` or `pull`, each row by its own frame."""
        which = self.which if at is None else self.which[at]
        out = np.empty_like(x)
        for k in np.unique(which):
            rows = which == k
            out[rows] = getattr(self.frames[k], do)(x[rows])
        return out

    def _direction(self, at: np.ndarray) -> np.ndarray:
        """H g by the two-loop recursion, newest pair first; g itself where that leads down."""
        s, y, rho, g = self.s[at], self.y[at], self.rho[at], self.slope[at]
        way, a = g.copy(), np.zeros((MEMORY, len(at)))
        for j in range(MEMORY):
            a[j] = rho[:, j] * (s[:, j] * way).sum(1)
            way -= a[j][:, None] * y[:, j]
        square = (y[:, 0] ** 2).sum(1)
        scale = np.where(rho[:, 0] > 0, 1 / np.maximum(rho[:, 0] * square, 1e-300), 1.0)
        way *= np.clip(scale, 1e-8, 1e4)[:, None]
        for j in reversed(range(MEMORY)):
            way += (a[j] - rho[:, j] * (y[:, j] * way).sum(1))[:, None] * s[:, j]
        down = ~((way * g).sum(1) > 0)
        self.rho[at[down]] = 0.0
        return np.where(down[:, None], g, way)

    def _advance(self, at: np.ndarray) -> None:
        """One trial of each."""
        way = self._direction(at)
        z = self.z[at] + self.step[at, None] * way
        u = self._each("apply", z, at)
        value, g = self.evaluate(u)
        self.steps[at] += 1
        enough = self.value[at] + ARMIJO * self.step[at] * (way * self.slope[at]).sum(1)
        up = np.isfinite(value) & (value > enough)
        self._refuse(at[~up], np.isfinite(value[~up]))
        if up.any():
            self._accept(at[up], z[up], u[up], value[up], g[up])
        self.state[at[(self.state[at] == CLIMBING) & (self.steps[at] >= MOST_STEPS)]] = LATE

    def _refuse(self, at: np.ndarray, finite: np.ndarray) -> None:
        self.refused[at] += 1
        self.step[at] *= np.where(finite, 0.25, 0.05)
        self.state[at[self.refused[at] > REFUSALS]] = ENDED

    def _accept(self, at: np.ndarray, z: np.ndarray, u: np.ndarray, value: np.ndarray, g: np.ndarray) -> None:
        slope = self._each("pull", g, at)
        s, y = z - self.z[at], self.slope[at] - slope
        product = (s * y).sum(1)
        concave = product > CONCAVE * np.sqrt((s**2).sum(1) * (y**2).sum(1))
        for name, new in (("s", s), ("y", y), ("rho", 1 / np.where(concave, product, 1.0))):
            kept = getattr(self, name)
            kept[at] = np.concatenate([new[:, None], kept[at][:, :-1]], 1)
        self.rho[at[~concave]] = 0.0
        longer = np.where(self.refused[at] == 0, STRIDE * self.step[at], self.step[at])
        self.step[at] = np.where(concave, 1.0, longer)
        self.small[at] = np.where(value - self.value[at] < SMALL, self.small[at] + 1, 0)
        self.z[at], self.u[at], self.value[at], self.g[at], self.slope[at] = z, u, value, g, slope
        self.refused[at] = 0
        self.state[at[self.small[at] >= 2]] = ENDED
        self.state[at[~(np.abs(u).max(1) < FAR)]] = LATE
        if self.known is not None:
            said = self.known(u, value, g)
            self.state[at[said >= 0]] = said[said >= 0]
