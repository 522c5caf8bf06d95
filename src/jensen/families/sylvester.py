"""Householder reflections: a Gaussian with a rotated covariance, and the Sylvester flow, a planar flow of many units."""

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import UNSIZED, AbstractPlain
from .composite import Composite, apart, solve_tanh, square
from .full_rank import FullRank
from .gaussian import check_scale, gaussian_entropy, log_normal_from_noise, sized, start_log_scale, start_scale
from .mean_field import MeanField
from .noise import StandardNormal
from .planar import check_layers
from .warped import FLOW, AbstractFlow, coordinates, start_arrays, start_base


def reflect(vectors: Float[Array, "N D"], x: Float[Array, " D"]) -> Float[Array, " D"]:
    """H_N ... H_1 x, H_n = I - 2 v v^T / |v|^2."""
    for v, scale in zip(apart(vectors), apart(2 / square(vectors)), strict=True):
        x = x - scale * (v @ x) * v
    return x


class Householder(AbstractPlain):
    """Householder flow: a Gaussian whose covariance is a diagonal one, reflected.

    Definition: q(z) = N(z; mu, H diag(sigma^2) H^T), H = H_n ... H_1, H_i = I - 2 v_i v_i^T / |v_i|^2: volumes are kept.
    Arguments:  shape, loc, scale: as for `MeanField` (at least 2 coordinates).
                n_layers: reflections; D of them make any covariance.
    Facts:      under `Amortised` an encoder computes (n_layers + 2) D numbers; `FullRank` needs D (D + 2).
    Cost:       O(n_layers D), either way.
    Reference:  Tomczak and Welling (2016).  [tomczak2016householder]
    """

    loc: Float[Array, " D"]
    log_scale: Float[Array, " D"]
    vectors: Float[Array, "N D"]
    layout: Layout = eqx.field(static=True)
    start: float = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    facts: ClassVar = FLOW | {Fact.ENTROPY, Fact.MOMENTS}

    def __init__(self, shape: PyTree = None, *, n_layers: int = 4, loc: PyTree = None, scale: PyTree = 0.1):
        check_layers("Householder", n_layers)
        check_scale("Householder", scale)
        self.start, self.n_layers = start_scale(scale), n_layers
        self.layout = UNSIZED if shape is None else Layout(shape)
        self.loc = self.log_scale = self.vectors = UNSIZED
        if self.layout is not None:
            dtype, dim = default_float(), coordinates("Householder", self.layout)
            self.loc = jnp.zeros(dim, dtype) if loc is None else self.layout.ravel(loc).astype(dtype)
            self.log_scale = start_log_scale(self.layout, scale, dtype)
            self.vectors = jr.normal(jr.key(0), (n_layers, dim), dtype)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("Householder", self.layout, latents)
        if self.layout is not None:
            return self
        return replaced(self, **vars(Householder(layout.shape_tree(), n_layers=self.n_layers, scale=self.start)))

    def noise_law(self):
        return StandardNormal(self.loc.shape)

    def transform(self, noise):
        return self.layout.unravel(self.loc + reflect(self.vectors, jnp.exp(self.log_scale) * noise))

    def transform_and_log_ratio(self, noise):
        return self.transform(noise), log_normal_from_noise(noise, self.log_scale)

    def log_prob(self, draw):
        """A reflection is its own inverse."""
        eps = reflect(self.vectors[::-1], self.layout.ravel(draw) - self.loc) * jnp.exp(-self.log_scale)
        return log_normal_from_noise(eps, self.log_scale)

    def entropy(self):
        return gaussian_entropy(self.log_scale)

    def moments(self):
        turned = jax.vmap(lambda e: reflect(self.vectors, e))(jnp.diag(jnp.exp(self.log_scale)))  # rows: columns of H S
        return self.layout.unravel(self.loc), self.layout.unravel((turned**2).sum(0))


class SylvesterArrays(eqx.Module):
    """Of all layers; M is the rank. mixed: R above its diagonal, R' below it, transposed."""

    basis: Float[Array, "L _ _"] | None  # (L, D, M), (L, n_reflections, D), or none
    mixed: Float[Array, "L M M"]
    diagonals: Float[Array, "L 2 M"]
    b: Float[Array, "L M"]


MOST_UNITS = 16  # of a layer, where no rank is given
Kind = Literal["orthogonal", "householder", "triangular"]


class Sylvester(AbstractFlow):
    """Sylvester flow: a planar flow of M units a layer.

    Definition: as `Planar`, with layers x -> x + Q R tanh(R' Q^T x + b): Q of orthonormal columns (D, M), R and R' upper
                triangular (M, M) with diagonals in (-1, 1), so that each layer is invertible; the identity at R = 0.
                log det = sum_m log(1 + tanh'_m R_mm R'_mm).
    Arguments:  shape, n_layers, loc, scale, cholesky, diagonal: as for `Planar`.
                kind: how Q is made. "orthogonal": the columns of a matrix, orthonormalised (Gram and Schmidt, exact to
                rounding, in the place of the paper's iteration); "householder": columns of a product of reflections;
                "triangular": no parameters, the coordinates in their order and in the reverse one, by turns.
                rank: M, 1 to D (default: D, at most 16; "triangular": D).
                n_reflections: of "householder" (default: M).
    Cost:       O(D M + M^2) a layer for a draw with its log q, and O(D M^2) for the orthonormal columns. The density of a
                given draw: M scalar equations a layer, one after the other.
    Reference:  van den Berg, Hasenclever, Tomczak and Welling (2018).  [vandenberg2018sylvester]
    """

    base: FullRank | MeanField
    arrays: SylvesterArrays
    n_layers: int = eqx.field(static=True)
    rank: int | None = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    n_reflections: int | None = eqx.field(static=True)
    facts: ClassVar = FLOW

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, rank: int | None = None, kind: Kind = "orthogonal",
        n_reflections: int | None = None, loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None,
        diagonal: bool = False,
    ):  # fmt: skip
        check_layers("Sylvester", n_layers)
        _check_options(rank, kind, n_reflections)
        self.n_layers, self.rank, self.kind, self.n_reflections = n_layers, rank, kind, n_reflections
        self.base = start_base("Sylvester", shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)

    def begin(self, key, dim):
        dtype, n, rank = default_float(), self.n_layers, _rank(self.rank, self.kind, dim)
        shapes = {"orthogonal": (n, dim, rank), "householder": (n, self.n_reflections or rank, dim)}
        k1, k2, k3 = jr.split(key, 3)
        basis = jr.normal(k1, shapes[self.kind], dtype) if self.kind in shapes else None
        inner = jnp.tril(jr.normal(k2, (n, rank, rank), dtype), -1) / rank**0.5
        diagonals = jnp.zeros((n, 2, rank), dtype).at[:, 1].set(0.5 * jr.normal(k3, (n, rank), dtype))
        return SylvesterArrays(basis, inner, diagonals, jnp.zeros((n, rank), dtype))

    def map(self):
        a = self.arrays
        basis, mixed, diagonals, b = a.basis, a.mixed, a.diagonals, a.b
        make = {"orthogonal": _orthonormal, "householder": lambda v: _columns(v, b.shape[-1])}
        dim = self.base.loc.shape[0]
        Q = _turns(self.n_layers, dim, b.dtype) if basis is None else jax.vmap(make[self.kind])(basis)
        spread = jnp.tanh(diagonals)[..., None] * jnp.eye(b.shape[-1], dtype=b.dtype)  # (L, 2, M, M)
        R = jnp.triu(mixed, 1) + spread[:, 0]
        inner = jnp.swapaxes(jnp.tril(mixed, -1), 1, 2) + spread[:, 1]
        return Composite((Q, R, inner, b), _sylvester, _sylvester_back)


def _sylvester(layer, x):
    Q, R, inner, b = layer
    h = jnp.tanh(inner @ (Q.T @ x) + b)
    return x + Q @ (R @ h), jnp.log1p((1 - h * h) * jnp.diagonal(R) * jnp.diagonal(inner)).sum()


def _sylvester_back(layer, y):
    """For a = Q^T x: Q^T y = a + R tanh(R' a + b), upper triangular, so solved from the last unit up."""
    Q, R, inner, b = layer
    target = Q.T @ y

    def unit(known, i):
        a, h = known  # zero where not known yet
        s, t = inner[i] @ a + b[i], target[i] - R[i] @ h
        a_i = solve_tanh(R[i, i], inner[i, i], s, t)
        return (a.at[i].set(a_i), h.at[i].set(jnp.tanh(inner[i, i] * a_i + s))), None

    start = jnp.zeros_like(b), jnp.zeros_like(b)
    (_, h), _ = jax.lax.scan(unit, start, jnp.arange(b.size)[::-1])
    return y - Q @ (R @ h)


def _orthonormal(A: Float[Array, "D M"]) -> Float[Array, "D M"]:
    """Gram and Schmidt, each column projected twice, which is enough for orthogonality to rounding."""

    def column(Q, i):
        q = A[:, i]
        for _ in range(2):
            q = q - Q @ (Q.T @ q)
        return Q.at[:, i].set(q / jnp.sqrt(square(q))), None

    return jax.lax.scan(column, jnp.zeros_like(A), jnp.arange(A.shape[1]))[0]


def _columns(vectors: Float[Array, "N D"], rank: int) -> Float[Array, "D M"]:
    """The first columns of a product of reflections."""
    return jax.vmap(lambda e: reflect(vectors, e), out_axes=1)(jnp.eye(rank, vectors.shape[1], dtype=vectors.dtype))


def _turns(n_layers: int, dim: int, dtype) -> Float[Array, "L D D"]:
    """The identity and the reversal, by turns."""
    eye = jnp.eye(dim, dtype=dtype)
    return jnp.stack([eye[::-1] if i % 2 else eye for i in range(n_layers)])


def _rank(rank: int | None, kind: str, dim: int) -> int:
    if rank is None:
        return dim if kind == "triangular" else min(dim, MOST_UNITS)
    if rank > dim or (kind == "triangular" and rank < dim):
        wrong = f"there are {dim} coordinates"
        because = 'Q is the identity or a reversal for "triangular"' if rank < dim else "Q has orthonormal columns"
        raise OptionError(explain(f"`Sylvester(rank={rank}, kind={kind!r})`", wrong, because, f"rank={dim}"))
    return rank


def _check_options(rank: int | None, kind: str, n_reflections: int | None) -> None:
    if kind not in get_args(Kind):
        because = "it says how Q is made"
        raise OptionError(explain(f"`Sylvester(kind={kind!r})`", "it is unknown", because, f"one of {get_args(Kind)}"))
    if rank is not None and rank < 1:
        raise OptionError(explain(f"`Sylvester(rank={rank})`", "it is below 1", "Q needs a column", "rank=4"))
    if n_reflections is not None and (n_reflections < 1 or kind != "householder"):
        wrong = "it is below 1" if n_reflections < 1 else f"kind={kind!r} makes no reflections"
        asked, instead = f"`Sylvester(n_reflections={n_reflections})`", 'Sylvester(kind="householder", n_reflections=4)'
        raise OptionError(explain(asked, wrong, 'Q of "householder" is a product of that many', instead))
