"""Coordinates that end where a density does: half lines, intervals, simplexes, along any linear combinations."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from ..algorithms.gaussian import LOG_2PI

LOG_2 = math.log(2)
MIDDLE = float(scipy.special.log_ndtr(-1.0))
LIGHT = 0.57  # squared mean over mean square of what is beyond a wall: an exponential has 1/2, a half normal 0.64
FLAT = 1e-7  # a coefficient of a normal, or of a relation between normals, that is rounding


class Ends(eqx.Module):
    """u in R^D to z within flat walls: z = back w, w = origin + unit * r(u).

    Definition: of each w that ends on one side r(u) is the quantile of an exponential, or of a half normal, at Phi(u); of k
                of them with k + 1 walls the first k parts of a stick broken at quantiles of Beta(1, k - j), a uniform
                simplex's (an interval is the simplex k = 1); else r = u. So a density that meets its walls at a finite value
                is about Gaussian in u: uniform ones, exponentials and half normals exactly.
    """

    back: Float[Array, "D D"]
    origin: Float[Array, " D"]
    unit: Float[Array, " D"]
    log_size: Float[Array, ""]  # of |dz/dr|
    exponential: tuple[int, ...] = eqx.field(static=True)
    half_normal: tuple[int, ...] = eqx.field(static=True)
    simplexes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def push(self, u: Any, xp: Any, special: Any) -> tuple[Any, Any]:
        """(..., D) to (z, log |det dz/du|), by the functions of JAX or of NumPy and SciPy."""
        upper = special.log_ndtr(-u)  # log of the mass above u
        normal = -0.5 * u**2 - 0.5 * LOG_2PI
        among = lambda group: np.isin(np.arange(u.shape[-1]), group)
        exponential, light = among(self.exponential), among(self.half_normal)
        single = among([g[0] for g in self.simplexes if len(g) == 1])
        r = xp.where(exponential, -upper, xp.where(single, -xp.expm1(upper), u))
        slope = xp.where(exponential, normal - upper, xp.where(single, normal, 0.0))
        if light.any():
            x = half_normal(u, upper, xp, special)
            r, slope = xp.where(light, x, r), xp.where(light, 0.5 * (x**2 - u**2) - LOG_2, slope)
        for group in (g for g in self.simplexes if len(g) > 1):
            k, at = len(group), np.array(group)
            rest = upper[..., at] / (k - np.arange(k))
            broken = -xp.expm1(rest) * xp.exp(xp.cumsum(rest, -1) - rest)
            place = np.zeros((k, u.shape[-1]))
            place[np.arange(k), at] = 1.0
            r = xp.where(among(group), broken @ place, r)
            slope = xp.where(among(group), normal - math.lgamma(k + 1) / k, slope)
        return (self.origin + self.unit * r) @ self.back.T, self.log_size + slope.sum(-1)

    def __call__(self, u: Float[Array, " D"]) -> tuple[Float[Array, " D"], Float[Array, ""]]:
        return self.push(u, jnp, jax.scipy.special)

    def host(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """z on the host."""
        return jax.tree.map(np.asarray, self).push(u, np, scipy.special)[0]

    def inverse(self, z: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """u on the host; not finite for a point that is not within the walls."""
        back, origin, unit = (np.asarray(a) for a in (self.back, self.origin, self.unit))
        u = (np.linalg.solve(back, z.T).T - origin) / unit
        for i in self.exponential:
            u[:, i] = _quantile(u[:, i])
        for i in self.half_normal:
            x = u[:, i]
            far = -scipy.special.ndtri_exp(np.minimum(LOG_2 + scipy.special.log_ndtr(-x), -1e-3))
            u[:, i] = np.where(x < 1, scipy.special.ndtri(scipy.special.erf(x / math.sqrt(2))), far)
        for group in self.simplexes:
            left = np.ones(len(u))
            for j, i in enumerate(group):
                part = u[:, i].copy()
                u[:, i] = _quantile(-(len(group) - j) * np.log1p(-part / left))
                left = left - part
        return u


def half_normal(u: Any, upper: Any, xp: Any, special: Any) -> Any:
    """x > 0 with 2 Phi(-x) = Phi(-u), upper = log Phi(-u): about u where u is large."""
    near = math.sqrt(2) * special.erfinv(special.ndtr(xp.minimum(u, 1.0)))
    v = xp.maximum(u, 1.0)
    x = v + LOG_2 / (v + 1 / v)
    for _ in range(4):  # Newton's steps on log Phi(-x)
        log_tail = special.log_ndtr(-x)
        x = x + (log_tail - xp.minimum(upper, MIDDLE) + LOG_2) * xp.exp(log_tail + 0.5 * x**2 + 0.5 * LOG_2PI)
    return xp.where(u < 1, near, x)


def _quantile(t: np.ndarray) -> np.ndarray:
    """u with -log Phi(-u) = t."""
    near = scipy.special.ndtri(-np.expm1(-np.minimum(t, 1.0)))
    return np.where(t < 0.5, near, -scipy.special.ndtri_exp(-t))


@dataclasses.dataclass
class Wall:
    """The half space normal . z > end, which the density does not leave."""

    normal: Float[np.ndarray, " D"]
    end: float

    def slack(self, z: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        return z @ self.normal - self.end

    def words(self, names: list[str]) -> str:
        """As an inequality of the parameters."""
        used = np.flatnonzero(self.normal)
        first = self.normal[used[0]]
        c, sign = self.normal / first, "<" if first < 0 else ">"
        if len(used) == 2 and abs(c[used[1]] + 1) < 1e-6 and abs(self.end) < 1e-9:
            return f"{names[used[0]]} {sign} {names[used[1]]}"
        size = lambda a: "" if abs(abs(a) - 1) < 1e-6 else f"{abs(a):.4g} "
        terms = [f"{'-' if c[i] < 0 else '+'} {size(c[i])}{names[i]}" for i in used[:4]]
        rest = f" + ... ({len(used)} terms)" if len(used) > 4 else ""
        return f"{' '.join(terms)[2:]}{rest} {sign} {_short(self.end / first)}"


def in_words(walls: list[Wall], names: list[str]) -> list[str]:
    """All of them, in the order of the parameters; two that face each other as one interval."""
    first = lambda w: (tuple(np.flatnonzero(w.normal)), w.normal[np.flatnonzero(w.normal)[0]] < 0)
    out: list[str] = []
    for w in sorted(walls, key=first):
        used = np.flatnonzero(w.normal)
        said, start = w.words(names), f"{names[used[0]]} > "
        if len(used) == 1 and w.normal[used[0]] < 0 and out and out[-1].startswith(start):
            out[-1] = f"{out[-1][len(start) :]} < {said}"
        else:
            out.append(said)
    return out


def _short(x: float) -> str:
    return f"{0.0 if abs(x) < 1e-12 else x:.6g}"


def ends_of(walls: list[Wall], inside: Float[np.ndarray, "n D"]) -> Ends | None:
    """Coordinates that end at these walls and nowhere else; None where there are none as simple.

    Definition: walls whose normals are independent end a coordinate each; k + 1 that close a simplex (two: an interval) end
                k together. Anything else (a pentagon, a pyramid's tip) has no such coordinates. inside: draws, for the scale.
    """
    d = inside.shape[1]
    scale = np.maximum(inside.std(0), 1e-300)
    n = np.stack([w.normal * scale for w in walls])
    n = n / np.linalg.norm(n, axis=1, keepdims=True)
    pivots, groups = _circuits(n)
    if groups is None:
        return None
    rows: list[Any] = [None] * d  # each at the place of a coordinate that it has much of
    place = {}
    for i in sorted(pivots, key=lambda i: -np.abs(n[i]).max()):
        free = [j for j in range(d) if rows[j] is None]
        place[i] = free[int(np.argmax(np.abs(n[i])[free]))]
        rows[place[i]] = n[i] / scale
    for j in _completing(n[pivots], [j for j in range(d) if rows[j] is None]):
        at = j if rows[j] is None else next(k for k in range(d) if rows[k] is None)
        rows[at] = np.eye(d)[j] / scale[j]
    matrix = np.stack(rows)
    w = inside @ matrix.T
    origin, unit = w.mean(0), np.maximum(w.std(0), 1e-300)
    size = lambda i: np.linalg.norm(walls[i].normal * scale)
    end = {i: walls[i].end / size(i) for i in range(len(walls))}
    inner = {p for g, _ in groups for p in g}
    one_sided = [i for i in pivots if i not in inner]
    light = []
    for i in one_sided:
        slack = np.maximum(w[:, place[i]] - end[i], 1e-300)
        mean = float(slack.mean())
        if mean**2 > LIGHT * (slack**2).mean():
            light.append(place[i])
            mean *= math.sqrt(math.pi / 2)
        origin[place[i]], unit[place[i]] = end[i], mean
    heavy = sorted({place[i] for i in one_sided} - set(light))
    simplexes = []
    for (
        members,
        closing,
    ) in groups:  # sum_i c_i n_i + n_closing = 0, so the slacks add up to -(sum c_i end_i + end_closing)
        c = -np.linalg.lstsq(n[members].T, n[closing], rcond=None)[0]
        total = -float(c @ [end[i] for i in members] + end[closing])
        if not total > 0:
            return None
        for i, weight in zip(members, c, strict=True):
            origin[place[i]], unit[place[i]] = end[i], total / weight
        simplexes.append(tuple(place[i] for i in members))
    back = np.linalg.inv(matrix)
    back[np.abs(back) < FLAT * np.abs(back).max(1, keepdims=True)] = 0.0
    log_size = float(np.linalg.slogdet(back)[1] + np.log(unit).sum())
    as_arrays = [jnp.asarray(a) for a in (back, origin, unit, log_size)]
    return Ends(*as_arrays, exponential=tuple(heavy), half_normal=tuple(sorted(light)), simplexes=tuple(simplexes))


def _circuits(n: np.ndarray) -> tuple[list[int], list[tuple[list[int], int]] | None]:
    """(independent normals, groups): a group is k independent normals and one more that closes a simplex with them.

    None for the groups where walls meet in another way.
    """
    pivots: list[int] = []
    groups: list[tuple[list[int], int]] = []
    for i in range(len(n)):
        if not pivots:
            pivots.append(i)
            continue
        c, *_ = np.linalg.lstsq(n[pivots].T, n[i], rcond=None)
        if np.linalg.norm(c @ n[pivots] - n[i]) > 1e-4:
            pivots.append(i)
            continue
        used = np.abs(c) > 1e-4
        members = [p for p, u in zip(pivots, used, strict=True) if u]
        if (c[used] > 0).any() or any(set(members) & set(g) for g, _ in groups):
            return pivots, None
        groups.append((members, i))
    return pivots, groups


def _completing(n: np.ndarray, free: list[int]) -> list[int]:
    """Coordinates that complete independent normals to a basis, those without a wall of their own first."""
    d = n.shape[1]
    basis, chosen = np.linalg.qr(n.T)[0], []
    for j in [*free, *(j for j in range(d) if j not in free)]:
        if basis.shape[1] == d:
            break
        rest = np.eye(d)[j] - basis @ basis[j]
        if np.linalg.norm(rest) > 1e-3:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
            chosen.append(j)
    return chosen
