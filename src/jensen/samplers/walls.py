"""Where a density ends: walls behind which it is -inf though it has not fallen off, found by walking into them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from ..algorithms.gaussian import Gaussian, safe_cholesky
from ..algorithms.laplace import starts
from ..algorithms.target import Target
from .ends import FLAT, Ends, Wall, ends_of, in_words
from .slices import settled

MOST = 200  # dimensions: a normal costs 50 D evaluations
NEAR = 30.0  # nats below the middle of the draws from which a wall carries nothing
FURTHEST = 30.0  # sd: walls further off are not looked for
CLOSE = 1e-3  # of the way to a wall: how close to it the density is looked at
HALVINGS = 60
TURN, BENT = 1e-2, 1e-4  # of a ray, for a wall's normal; what a wall is out of flat when it is called curved
RAYS, PROBES, PATIENCE = 24, 160, 16
MISSED = 0.002, 0.02  # shares of q's draws beyond walls: good; hopeless


@dataclasses.dataclass
class Support:
    """What was learned. inside: draws of the density.   ends: coordinates that end at the walls; None where there are none
    as simple: then `walls` are at most some of them.   curved: is a wall not flat?"""

    inside: Float[np.ndarray, "n D"]
    walls: list[Wall]
    ends: Ends | None
    curved: bool = False

    def told(self, names: list[str]) -> dict[str, Any]:
        """For the verdict, and the report."""
        words = in_words(self.walls, names)
        return {
            "sentence": self.sentence(names),
            "walls": words,
            "coordinates": self.ends is not None,
            "curved": self.curved,
            "pictures": self.pictures(names),
        }

    def pictures(self, names: list[str], most: int = 3, points: int = 600) -> list[dict[str, Any]]:
        """Draws and the ends, of up to three flat walls (those that end one coordinate together); else of two coordinates."""
        u = self.inside[:: max(1, len(self.inside) // points)]
        short = lambda x: [float(f"{v:.5g}") for v in x]
        of_one: dict[int, list[float]] = {}
        others = []
        for wall in self.walls:
            used = np.flatnonzero(wall.normal)
            if len(used) == 1:
                of_one.setdefault(int(used[0]), []).append(float(wall.end / wall.normal[used[0]]))
            else:
                first = wall.normal[used[0]]  # signs as in the words
                others.append(
                    {"label": wall.words(names), "x": short(u @ wall.normal / first), "ends": [wall.end / first]}
                )
        found = [{"label": names[i], "x": short(u[:, i]), "ends": ends} for i, ends in of_one.items()] + others
        if not found and u.shape[1] > 1:
            found = [{"label": names[0], "label_y": names[1], "x": short(u[:, 0]), "y": short(u[:, 1])}]
        return found[:most]

    def sentence(self, names: list[str], most: int = 3) -> str:
        """For the verdict."""
        if self.ends is None:
            how = "curved, or with gaps between" if self.curved else "flat, but too many to end a coordinate each"
            return f"The density ends at walls ({how}): fitted by draws that stay within them."
        said = in_words(self.walls, names)
        more = f" and {len(said) - most} more" if len(said) > most else ""
        return f"The density is zero outside of {', '.join(said[:most])}{more}: fitted in coordinates that end there."


def support_of(target: Target, mode: np.ndarray | None, seed: int) -> Support | None:
    """The support of a density that was -inf somewhere; None where no wall is near its mass.

    mode: a point of high density, if one is known.
    Cost:   nothing where no value was -inf; 1,000 evaluations where -inf is met only far out (an overflow); else 50,000 to
            200,000.
    Raises: OutOfBudget.
    """
    if not _infinite(target) or target.dim > MOST or not target.smooth:
        return None
    rng = np.random.default_rng([seed, 31])
    if mode is not None and np.isfinite(target.value(mode[None])[0]) and not _walled(target, mode, rng):
        return None
    u = _candidates(rng, target.dim)
    if mode is not None:
        u = np.concatenate([mode[None], u])
    value = target.value(u)
    alive = np.isfinite(value)
    if not alive.any():
        u = _far(rng, target.dim)
        value = target.value(u)
        alive = np.isfinite(value)
        if not alive.any():
            return None
    ensemble = settled(target, u[alive], value[alive], rng)
    kept, values = [], []
    for _ in range(8):
        ensemble.sweep(target)
        ensemble.sweep(target)
        kept.append(ensemble.u.copy())
        values.append(ensemble.value.copy())
    support = _Search(target, np.concatenate(kept), np.concatenate(values), rng).support()
    return support if _infinite(target) else None


def _infinite(target: Target) -> bool:
    """Was the density -inf, and not mostly NaN: that is a mistake more often than a wall, and is said to be one."""
    return target.n_outside > target.n_not_a_number


def _candidates(rng: Any, d: int) -> np.ndarray:
    """Points that supports people write down may hold: orthants, boxes, ordered numbers, parts of a whole."""
    size = 10.0 ** rng.uniform(-4, 3, (64, 1))
    sign = np.where(rng.random((64, 1)) < 0.5, -1.0, 1.0)
    steps = np.sort(rng.standard_normal((64, d)), 1)
    parts = rng.dirichlet(np.ones(d + 1), 64)[:, :d]
    unit = rng.random((64, d))
    rising = sign * size * np.sort(unit * sign, 1)
    shape = [sign * size * (1 + 0.1 * unit), size * steps, -size * steps, rising, -rising]
    return np.concatenate([starts(rng, d), *shape, parts, unit, 0.5 + 0.1 * (unit - 0.5), sign * size * unit])


def _far(rng: Any, d: int) -> np.ndarray:
    """Points of all sizes, of one for all coordinates and of one for each."""
    own = np.where(rng.random((8192, d)) < 0.5, -1.0, 1.0) * 10.0 ** rng.uniform(-1, 3, (8192, d))
    size = 10.0 ** rng.uniform(-9, 12, (2048, 1))
    same = np.where(rng.random((1024, 1)) < 0.5, -1.0, 1.0) * (1 + 0.01 * rng.random((1024, d)))
    return np.concatenate([size * np.concatenate([rng.standard_normal((1024, d)), same]), own])


def _walled(target: Target, mode: np.ndarray, rng: Any) -> bool:
    """Does a ray from the mode end at a density that has not fallen off?"""
    d = target.dim
    axes = np.eye(d)[rng.permutation(d)[:32]]
    way = np.concatenate([axes, -axes, rng.standard_normal((16, d)) / np.sqrt(d)])
    level = target.value(mode[None])[0]
    low, high = np.full(len(way), 1e-12), np.full(len(way), 1e4)
    size = 1 + np.abs(mode).max()
    hit = np.zeros(len(way), bool)
    for t in (1e4, 30.0, 3.0, 1.0, 0.3, 0.1):
        now = target.value(mode + size * t * way) == -np.inf
        high, hit = np.where(now, t, high), hit | now
    way, low, high = way[hit], low[hit], high[hit]
    for _ in range(18):
        middle = np.sqrt(low * high)
        inside = target.value(mode + size * middle[:, None] * way) > -np.inf
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return bool((target.value(mode + size * ((1 - CLOSE) * low)[:, None] * way) > level - 2 * NEAR).any())


class _Search:
    """Walls around draws x of the density, in coordinates where these are white."""

    def __init__(self, target: Target, x: np.ndarray, value: np.ndarray, rng: Any):
        self.target, self.x, self.rng = target, x, rng
        self.least = float(np.median(value)) - NEAR
        self.q = Gaussian(x.mean(0), safe_cholesky(np.atleast_2d(np.cov(x.T)) + 1e-14 * np.diag(x.var(0))))
        self.curved = 0

    def support(self) -> Support | None:
        walls = self._along_axes()
        if walls is None:
            walls = self._flat()
        if not walls and not self.curved:
            return None
        for _ in range(4):
            ends = ends_of(walls, self.x) if walls and not self.curved else None
            if ends is None:
                break
            beyond, share = self._beyond(ends)
            if share <= MISSED[0]:
                return Support(self.x, walls, ends)
            more = self._joined(walls, self._planes(*self._towards(beyond)))
            if len(more) == len(walls):
                if share > MISSED[1]:
                    break
                return Support(self.x, walls, ends)
            walls = more
        return Support(self.x, walls, None, bool(self.curved))

    # ---- rays ------------------------------------------------------------------------------------------------------
    def _outside(self, u: np.ndarray) -> np.ndarray:
        return self.target.value(u) == -np.inf

    def _ends_of(self, at: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(t inside, t outside, is it a wall) of rays at + t way: where they first are outside, as far as steps of a
        factor tell."""
        n = len(at)
        low, high, open_ = np.zeros(n), np.full(n, np.inf), np.arange(n)
        for t in np.geomspace(0.02, FURTHEST, 12):
            out = self._outside(at[open_] + t * way[open_])
            high[open_[out]], low[open_[~out]] = t, t
            open_ = open_[~out]
            if not len(open_):
                break
        hit = np.isfinite(high)
        low[hit], high[hit] = self._halved(at[hit], way[hit], low[hit], high[hit], 14)
        near = hit.copy()
        near[hit] = self.target.value(at[hit] + ((1 - CLOSE) * low[hit])[:, None] * way[hit]) > self.least
        return low, high, near

    def _halved(self, at, way, low, high, n: int = HALVINGS):
        low, high = low.copy(), high.copy()
        for _ in range(n):
            middle = (low + high) / 2
            out = self._outside(at + middle[:, None] * way)
            low, high = np.where(out, low, middle), np.where(out, middle, high)
        return low, high

    def _some(self, n: int) -> np.ndarray:
        return self.x[self.rng.choice(len(self.x), n, replace=n > len(self.x))]

    # ---- walls across coordinates --------------------------------------------------------------------------------------
    def _along_axes(self) -> list[Wall] | None:
        """Walls at one value of a coordinate whatever the others; None where a ray met another wall."""
        d = self.x.shape[1]
        m = max(8, min(RAYS, 2000 // d))
        at = np.repeat(self._some(m), 2 * d, 0)
        axes = np.concatenate([np.eye(d), -np.eye(d)])
        way = np.tile(axes * self.q.sd[None], (m, 1))
        low, high, near = (a.reshape(m, 2 * d) for a in self._ends_of(at, way))
        at, way = at.reshape(m, 2 * d, d), way.reshape(m, 2 * d, d)
        walls = []
        for k in range(2 * d):
            if not near[:, k].any():
                continue
            n, hit = axes[k], np.isfinite(high[:, k])
            inner = (at[:, k] + low[:, k, None] * way[:, k]) @ n
            outer = (at[hit, k] + high[hit, k, None] * way[hit, k]) @ n
            if inner.max() >= outer.min() + 1e-9 * np.abs(outer.min()):
                return None
            i = int(np.argmax(np.where(hit, inner, -np.inf)))
            t = self._halved(at[i : i + 1, k], way[i : i + 1, k], low[i : i + 1, k], high[i : i + 1, k])[0][0]
            walls.append(Wall(-n, -float((at[i, k] + t * way[i, k]) @ n)))
        return walls if walls and self._beyond_box(walls) else None

    def _beyond_box(self, walls: list[Wall]) -> bool:
        ends = ends_of(walls, self.x)
        return ends is not None and self._beyond(ends)[1] <= MISSED[0]

    # ---- flat walls -----------------------------------------------------------------------------------------------------
    def _flat(self) -> list[Wall]:
        """Planes that rays in all directions meet; `curved` counts the walls that are not flat."""
        d, walls, seen, idle = self.x.shape[1], [], 0, 0
        while seen < min(PROBES, 40_000 // d) and idle < max(PATIENCE, len(walls)):
            at = self._some(16)
            way = self.rng.standard_normal((16, d))
            way = (way / np.linalg.norm(way, axis=1, keepdims=True)) @ self.q.root.T
            found = self._planes(at, way)
            joined = self._joined(walls, found)
            idle = 0 if len(joined) > len(walls) else idle + 16
            walls, seen = joined, seen + 16
            if self.curved > 2 and self.curved > 0.1 * seen:
                break
        self.curved = self.curved if self.curved > 2 else 0
        return walls

    def _planes(self, at: np.ndarray, way: np.ndarray) -> list[Wall]:
        """Of rays that meet a wall: the plane through where D + 1 rays close to each meet it."""
        low, high, near = self._ends_of(at, way)
        keep = np.flatnonzero(near)
        return [w for i in keep for w in [self._plane(at[i], way[i], low[i], high[i])] if w is not None]

    def _plane(self, at: np.ndarray, way: np.ndarray, low: float, high: float) -> Wall | None:
        d = len(at)
        length = np.linalg.norm(self.q.whiten((self.q.mean + way)[None])[0])
        turned = np.concatenate([np.eye(d), self.rng.standard_normal((2, d)) / np.sqrt(d)]) * TURN * length
        ways = way + turned @ self.q.root.T
        start = np.repeat(at[None], d + 2, 0)
        a, b = np.full(d + 2, 0.8 * low), np.full(d + 2, min(1.25 * high, high + 0.25))
        if self._outside(start + a[:, None] * ways).any() or not self._outside(start + b[:, None] * ways).all():
            return None
        t = self._halved(start, ways, a, b)[0]
        points = start + t[:, None] * ways
        z = self.q.whiten(points)
        near = z[:d] - z[0]
        normal = np.linalg.svd(near[1:])[2][-1] if d > 1 else np.ones(1)
        away = (z[d:] - z[0]) @ normal
        if (np.abs(away) > BENT * max(np.linalg.norm(near, axis=1).max(), 1e-300)).any() and d > 1:
            self.curved += 1
            return None
        normal = normal if (self.q.whiten(at[None])[0] - z[0]) @ normal > 0 else -normal
        home = np.linalg.solve(self.q.root.T, normal)  # of z = R^-1 (u - mean)
        sd = self.q.sd
        home = home / np.abs(home * sd).max()
        home[np.abs(home * sd) < 10 * FLAT] = 0.0
        home = home / np.abs(home).max()
        rounded = np.round(home, 6)
        home = np.where(np.abs(home - rounded) < 1e-8, rounded, home)
        return Wall(home, float((points @ home).min()))

    def _joined(self, walls: list[Wall], found: list[Wall]) -> list[Wall]:
        """Those that are new too. A wall that cuts through the draws is not flat, or not all of the edge."""
        walls = list(walls)
        sd = self.q.sd
        for w in found:
            size = np.linalg.norm(w.normal @ self.q.root)
            if (w.slack(self.x) < -1e-6 * size).any():
                self.curved += 1
                continue
            unit = w.normal * sd / np.linalg.norm(w.normal * sd)
            known = [w.normal * sd / np.linalg.norm(w.normal * sd) for w in walls]
            if not any(np.abs(k - unit).max() < 1e-4 for k in known):
                walls.append(w)
        return walls

    # ---- what is beyond ---------------------------------------------------------------------------------------------------
    def _beyond(self, ends: Ends) -> tuple[np.ndarray, float]:
        """Draws of a Gaussian in these coordinates where the density is -inf, and their share."""
        u = ends.inverse(self.x)
        u = np.clip(u[np.isfinite(u).all(1)], -6.0, 6.0) if len(u) else u
        if len(u) < len(self.x) // 2:
            return self.x[:0], 1.0
        q = Gaussian(u.mean(0), u.std(0) + 1e-12)
        z = ends.host(q.sample(self.rng, 1024))
        out = self._outside(z)
        return z[out], float(out.mean())

    def _towards(self, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rays from draws to points beyond a wall, of the length of an sd."""
        beyond = beyond[:16]
        at = self._some(len(beyond))
        way = beyond - at
        length = np.linalg.norm(self.q.whiten(self.q.mean + way), axis=1, keepdims=True)
        return at, way / np.maximum(length, 1e-300)
