"""Hierarchies found in a density: which coordinates set the scale of which, and coordinates in which none does."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from ..algorithms.conditional import conditional_modes, positive
from ..algorithms.laplace import STEP, hessians
from ..algorithms.target import Target

SHIFT = 0.5  # by which a coordinate is moved to see what its value does to curvatures
SEEN = 3e-5  # relative change of a curvature from which it is more than the error of differences
MATTERS = 1e-3  # the same, from which a coordinate sets a scale at all
SAME = 0.02  # relative error up to which two ratios are one exponential
STEADY = 0.01  # by which the place of u_i may change what u_s does to its curvature, relative
TIED = 1e-3  # correlation from which two coordinates are conditioned together
SLOWEST = 0.2  # exponent from which a curvature depends on a coordinate exponentially rather than by a product
REACH = 3.0  # by which scales are moved to see the curvature that each of them sets
EXACT = 1e-8  # relative error of a curvature
FEWEST = 3  # places in which a Gaussian has to be found
NOTHING = 1e-5  # share of a curvature below which a term is no part of it
FARTHEST = 200.0  # of an exponent: beyond, there is no mass, and numbers end
RANK = 1e-7  # of the precision: a term that is smaller there leaves a direction free
LOOSE = 1e-4  # the same, where B is not Gaussian
GAUSSIAN = 1e-3  # misfit of a precision, in the least of its curvatures, up to which B is
DIAGONAL = 1e-4  # correlation up to which a matrix is diagonal
FLOOR = 1e-12  # of the precision's diagonal, against singular ones
MOST = 120  # dimensions: the search costs 4 D^2 gradients
MANY = 8  # terms, from which each is looked at in two places rather than four
PAIRS = 400  # of coordinates that may scale one curvature together, and are looked at


class ConditionalPrecision(eqx.Module):
    """u_B = V (Q^-1 b + L^-T z_B), Q(u_A) = L L^T, the rest as it is: in z no coordinate sets the scale of another.

    Definition: Q(u_A) = sum_f exp(w_f . u_A) Q_f and b(u_A) = sum_f exp(w_f . u_A) b_f: the natural parameters of the
                Gaussian that B is, given A, in a hierarchy of normal effects. Q_f are positive semi-definite, so that Q is
                a precision whatever u_A. Where B is not quite Gaussian z_B is not quite standard normal: no matter. The basis
                V separates what a term holds from what it leaves free, so that differences are not lost in a narrow neck.
    """

    a: Any
    b: Any
    exponents: Any  # (F, A)
    precisions: Any  # (F, B, B), or their diagonals (F, B) where V makes all of them diagonal
    linear: Any  # (F, B)
    basis: Any  # (B, B)
    log_volume: Any  # log |V|

    def __call__(self, z: Float[Array, " D"]) -> tuple[Float[Array, " D"], Float[Array, ""]]:
        """(u, log |det du/dz|)."""
        terms = jnp.exp(jnp.clip(self.exponents @ z[self.a], -FARTHEST, FARTHEST))
        precision, pulled = jnp.tensordot(terms, self.precisions, 1), terms @ self.linear
        scale = 1 / jnp.sqrt(precision if precision.ndim == 1 else jnp.diagonal(precision))
        log_det = jnp.log(scale).sum() + self.log_volume
        if precision.ndim == 1:
            y = scale * (scale * pulled + z[self.b])
        else:  # of unit diagonal: the scales are what spreads over decades
            root = jnp.linalg.cholesky(precision * scale[:, None] * scale + FLOOR * jnp.eye(scale.size))
            centred = solve_triangular(root, scale * pulled, lower=True) + z[self.b]
            y = scale * solve_triangular(root, centred, lower=True, trans=1)
            log_det = log_det - jnp.log(jnp.diagonal(root)).sum()
        return z.at[self.b].set(self.basis @ y), log_det


class Influence(NamedTuple):
    """exponents [i, s]: the curvature of i has a term exp(w u_s), 0 where it has none; together (i, s, r): in one term."""

    exponents: Float[np.ndarray, "D D"]
    together: set[tuple[int, int, int]]


@dataclasses.dataclass
class _Probe:
    """Curvatures of the negative log density around an anchor, by differences at its local scales."""

    target: Target
    u: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]

    def moved(self, moves: list[dict[int, float]]) -> Float[np.ndarray, "K D"]:
        u = np.repeat(self.u[None], len(moves), 0)
        for row, move in zip(u, moves, strict=True):
            row[list(move)] += list(move.values())
        return u

    def hessian(self, u: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "K D D"]:
        return -hessians(self.target, u, np.broadcast_to(STEP * self.scale, u.shape))

    def all(self, moves: list[dict[int, float]]) -> Float[np.ndarray, "K D"]:
        """Of every coordinate, for each of these moves."""
        u = self.moved(moves)
        parts = [np.diagonal(self.hessian(u[i : i + 8]), axis1=1, axis2=2) for i in range(0, len(u), 8)]
        return np.concatenate([np.zeros((0, self.u.size)), *parts])

    def one(self, moves: list[dict[int, float]], i: np.ndarray) -> Float[np.ndarray, " K"]:
        """Of coordinate i_k at the k-th move."""
        u, at = self.moved(moves), np.arange(len(i))
        step = np.zeros_like(u)
        step[at, i] = STEP * self.scale[i]
        g = self.target(np.concatenate([u + step, u - step]))[1].reshape(2, *u.shape)
        return -(g[0, at, i] - g[1, at, i]) / (2 * step[at, i])


def influence(probe: _Probe, h: Float[np.ndarray, " D"], among: Int[np.ndarray, " K"]) -> Influence:
    """Which coordinate's curvature has a term that is exponential in another one, as that of an effect is in the logarithm of
    its scale.

    Definition: H_ii = c + k exp(w u_s): steps of one size along u_s give differences of constant ratio, and where u_i is
                does not change them (it would in a log-linear likelihood).
    Arguments:  h: curvatures at the anchor.   among: coordinates that may set a scale.
    Cost:       4 D gradients for each of these, and as many for each that may after a first look.
    """
    d = h.size
    near = np.repeat(h[None, None], d, 0).repeat(2, 1)
    near[among] = probe.all([{int(s): by} for s in among for by in (SHIFT, -SHIFT)]).reshape(-1, 2, d)
    up, down = (near[:, 0] - h).T, (h - near[:, 1]).T  # [i, s]
    w = np.log(up / down) / SHIFT
    share = np.minimum(np.abs(up), np.abs(down)) / np.abs(h)[:, None]
    pure = (share > SEEN) & (share.max(0) > MATTERS) & np.isfinite(w) & (np.abs(w) > SLOWEST) & ~np.eye(d, dtype=bool)
    some = np.flatnonzero(pure.any(0))
    far = probe.all([{int(s): by} for s in some for by in (2 * SHIFT, -2 * SHIFT)]).reshape(some.size, 2, d)
    ahead, behind = far[:, 0].T - near[some, 0].T, near[some, 1].T - far[:, 1].T
    ratios = np.stack([ahead / up[:, some], down[:, some] / behind]) / np.exp(w[:, some] * SHIFT)
    pure[:, some] &= (np.abs(np.log(ratios)) < SAME).all(0)
    i, s = np.nonzero(pure)
    elsewhere = [
        probe.one([{int(a): SHIFT, int(b): by} for a, b in zip(i, s, strict=True)], i) for by in (SHIFT, -SHIFT)
    ]
    change = (elsewhere[0] - elsewhere[1]) / (up + down)[i, s] - 1
    pure[i, s] &= np.abs(change) < STEADY
    pairs = [(i, s, r) for i in range(d) for s in range(d) for r in range(s) if pure[i, s] and pure[i, r]]
    pairs = pairs[:PAIRS]
    both = probe.one([{s: SHIFT, r: SHIFT} for _, s, r in pairs], np.array([i for i, _, _ in pairs], int))
    mixed = both - [near[s, 0, i] + near[r, 0, i] - h[i] for i, s, r in pairs]
    joint = {p for p, m in zip(pairs, mixed, strict=True) if abs(m) > SEEN * abs(h[p[0]])}
    return Influence(np.where(pure, w, 0.0), joint)


def conditional_precision(
    target: Target,
    u: Float[np.ndarray, " D"],
    scale: Float[np.ndarray, " D"],
    among: Int[np.ndarray, " K"] | None = None,
) -> ConditionalPrecision | None:
    """The coordinates A that set scales, and B given A, from curvatures at and around u; None where none sets any.

    Definition: A, and the exponents w_f, are read off `influence`; B is what follows, and all that curvature ties to it.
                Q_f and b_f are fitted to the Hessians at the modes of B given A, for A at u and with each term's scale moved.
    Arguments:  among: coordinates that may be in A; all by default.
    Cost:       4 D^2 gradients, and 2 D for each of (4 F + 1) modes and Newton step.
    """
    if target.dim > MOST or not target.smooth or target.affordable(12 * target.dim**2, 0.3) < 12 * target.dim**2:
        return None
    probe = _Probe(target, u, scale)
    for _ in range(2):  # the second time at steps that fit
        hessian = probe.hessian(u[None])[0]
        h = np.diagonal(hessian)
        probe.scale = 1 / np.sqrt(np.maximum(np.abs(h), 1e-12 * np.abs(h).max()))
    with np.errstate(all="ignore"):
        found = influence(probe, h, np.arange(target.dim) if among is None else among)
    a = np.flatnonzero(found.exponents.any(0))
    b = np.setdiff1d(np.flatnonzero(found.exponents.any(1)), a)
    if not b.size:
        return None
    tied = np.abs(hessian * probe.scale[:, None] * probe.scale) > TIED
    for _ in range(target.dim):
        more = np.setdiff1d(np.flatnonzero(tied[b].any(0)), a)
        if more.size <= b.size:
            break
        b = more
    exponents, members = _terms(found, a, b)
    at = _moved(u[a], exponents)
    whole = np.repeat(u[None], len(at), 0)
    whole[:, a] = at
    fitted = conditional_modes(target, whole, b, probe.scale)
    if fitted.reached.sum() < FEWEST:
        return None
    return _fitted(a, b, exponents, members, fitted.u[fitted.reached], fitted.precision[fitted.reached])


def _terms(found: Influence, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exponents of every term (F, A), 0 (what no scale moves) first, and which of B it is a part of (F, B)."""
    terms, members = [np.zeros(len(a))], [np.ones(len(b), bool)]
    for k, i in enumerate(b):
        w = found.exponents[i]
        left = set(np.flatnonzero(w).tolist())
        while left:
            group, grown = {left.pop()}, True
            while grown:
                more = {s for s in left for r in group if (i, max(s, r), min(s, r)) in found.together}
                group, left, grown = group | more, left - more, bool(more)
            term = np.where(np.isin(a, sorted(group)), w[a], 0.0)
            same = [m for m, t in zip(members, terms, strict=True) if np.abs(term - t).max() < 5 * SAME]
            if not same:
                terms, members = [*terms, term], [*members, np.zeros(len(b), bool)]
            (same or members[-1:])[0][k] = True
    return np.round(np.array(terms), 2), np.array(members)


def _moved(u_a: np.ndarray, exponents: np.ndarray) -> Float[np.ndarray, "K A"]:
    """Where the terms are looked at: at u, and with each of them smaller and larger."""
    moves = [np.zeros(u_a.size)]
    for w in exponents[1:]:
        along = w / (w @ w) * np.abs(w).max()
        moves += [by * along for by in (-2 * REACH, -REACH, REACH, 2 * REACH)[:: 1 if len(exponents) < MANY else 3]]
    return u_a + np.array(moves)


def _fitted(a, b, exponents, members, u, precision) -> ConditionalPrecision:
    """Least squares on the terms, each entry in units of its row's and column's curvature."""
    terms = np.exp((u[:, a] - u[0, a]) @ exponents.T)  # (K, F), 1 at the first
    unit = np.sqrt(np.diagonal(precision, axis1=1, axis2=2))  # (K, B)
    n = b.size
    q = np.zeros((len(exponents), n, n))
    for i in range(n):
        for j in range(i + 1):
            q[:, i, j] = q[:, j, i] = _squares(
                terms, precision[:, i, j], unit[:, i] * unit[:, j], members[:, i] & members[:, j]
            )
    q = np.stack([_semidefinite(m) for m in q])
    fitted = np.tensordot(terms, q, 1)
    pulled = np.einsum("kij,kj->ki", fitted, u[:, b])
    linear = np.stack([_squares(terms, pulled[:, i], unit[:, i], members[:, i]) for i in range(n)], 1)
    back = np.exp(-exponents @ u[0, a])
    level = np.einsum("ki,kj->kij", unit, unit).min(0)
    gaussian = (np.abs(fitted - precision) < GAUSSIAN * level).all()
    rank = RANK if gaussian else LOOSE
    basis = _basis(q, rank)
    q, linear = np.stack([_clean(basis.T @ m @ basis, rank) for m in q]), linear @ basis
    linear = np.where(np.abs(linear) > RANK * np.abs(linear).max(1, keepdims=True), linear, 0.0)
    off = np.abs(q * (1 - np.eye(n))).sum(0) / np.sqrt(np.outer(np.diagonal(q.sum(0)), np.diagonal(q.sum(0))))
    if off.max() < DIAGONAL:
        q = np.diagonal(q, axis1=1, axis2=2)
    back = back.reshape(-1, *[1] * (q.ndim - 1))
    volume = np.linalg.slogdet(basis)[1]
    return ConditionalPrecision(a, b, exponents, q * back, linear * back.reshape(-1, 1), basis, np.asarray(volume))


def _basis(q: Float[np.ndarray, "F B B"], rank: float) -> Float[np.ndarray, "B B"]:
    """In which all terms together are the identity; what the first term holds, then what the next one holds of the rest, ..."""
    root = np.linalg.cholesky(positive(q.sum(0)[None])[0])
    basis, free = [], np.linalg.inv(root).T
    for m in sorted(q[1:], key=lambda m: -np.linalg.matrix_rank(m, 1e-9)):
        values, vectors = np.linalg.eigh(free.T @ m @ free)
        held = values > rank
        basis, free = [*basis, free @ vectors[:, held]], free @ vectors[:, ~held]
        if not free.shape[1]:
            break
    return np.concatenate([*basis, free], 1)


def _clean(m: Float[np.ndarray, "B B"], rank: float) -> np.ndarray:
    """Without the rounding errors that a large factor would make a curvature of."""
    size = np.sqrt(np.where(np.diagonal(m) > rank, np.diagonal(m), 0.0))
    return np.where(np.abs(m) > RANK * np.outer(size, size), m, 0.0) * (np.outer(size, size) > 0)


def _squares(terms: np.ndarray, y: np.ndarray, unit: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Coefficients of y, in these units, on the terms that it may have a part of; of those that are none, 0.

    Where B is not Gaussian what no scale moves differs from place to place: an error as large as the smallest unit, everywhere.
    A term that grows in a neck is what the curvature is there, but for this: in a direction that it leaves free nothing of it
    is left, which errors in proportion would make a curvature of.
    """
    error = unit.min() + EXACT * unit
    design, share = terms / error[:, None], np.abs(terms / unit[:, None]).max(0)
    size = np.abs(design).max(0)
    keep = part.copy()
    out = np.zeros(len(size))
    for _ in range(3):
        out[:] = 0
        if not keep.any():
            break
        out[keep] = np.linalg.lstsq(design[:, keep] / size[keep], y / error, rcond=1e-14)[0]
        small = keep & (np.abs(out) / size * share < NOTHING)
        if not small.any():
            break
        keep &= ~small
    return out / size


def _semidefinite(m: np.ndarray) -> np.ndarray:
    s = np.sqrt(np.maximum(np.diagonal(m), 0.0))
    inverse = np.where(s > 0, 1 / np.where(s > 0, s, 1.0), 0.0)
    values, vectors = np.linalg.eigh(m * inverse[:, None] * inverse)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T * s[:, None] * s
