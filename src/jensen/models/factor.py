"""Factor analysis and probabilistic PCA: linear Gaussian latent variables, by EM on rows or on their covariance."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ..errors import OptionError, check_count, explain
from ..tree import replaced
from .components import CHUNK
from .em import AbstractEM, column_moments, listed, observed
from .gaussian_components import BLOCK, LOG_2PI

SPARE, POWERS = 8, 6  # of the subspace iteration that a start is made by


class FactorParams(NamedTuple):
    """mean (d,), components W (k, d), noise (d,): x = mean + z W + noise. variance (d,): of the columns, fixed.
    turn (k + 1, k + 1): from the last iteration's (z, 1) to this one's."""

    mean: Array
    components: Array
    noise: Array
    variance: Array
    turn: Array


class Covariance(NamedTuple):
    """All that complete rows say: their weight, mean (d,) and covariance (d, d)."""

    weight: Array
    mean: Array
    covariance: Array


class Products(NamedTuple):
    """Sums over rows, with u = (z, 1) and y = x - mean, of observed entries j: joint E[u u'] (d or 1, k + 1, k + 1),
    cross y_j E[u] (d, k + 1), square y_j^2 (d,), count (d,); and latent E[u u'] of all rows."""

    joint: Array
    cross: Array
    square: Array
    count: Array
    latent: Array


class LinearGaussian(AbstractEM):
    """x = mean + z W + e, z ~ N(0, I), e ~ N(0, diag(noise)). Made by `FactorAnalysis` and `ProbabilisticPCA`.

    Definition: E-step: z | x_o ~ N(M^-1 W_o Psi_o^-1 (x_o - mu_o), M^-1), M = I + W_o Psi_o^-1 W_o', o what is observed of
                the row; M-step: a regression of each column on z. The covariance of z is a parameter of the iteration
                (PX-EM), absorbed into W at its end: same optimum, far fewer iterations.
    Arguments:  n_latents: k.   isotropic: one noise variance for all columns.   floor: least noise variance, as a share
                of the column's variance.   closed_form: start at the principal components, which for isotropic noise
                and complete rows is the optimum; else EM starts from random W.
    Cost:       complete rows: n d^2 once, then d^2 k an iteration; with missing values n (d k^2 + k^3).
    Raises:     OptionError when k is not below d.
    Reference:  Rubin and Thayer (1982); Tipping and Bishop (1999); Liu, Rubin and Wu (1998) for PX-EM.
                [rubin1982em; tipping1999probabilistic; liu1998px]
    """

    n_latents: int = eqx.field(static=True)
    isotropic: bool = eqx.field(static=True, default=False)
    floor: float = eqx.field(static=True, default=1e-6)
    closed_form: bool = eqx.field(static=True, default=True)
    missing: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_count("n_latents", self.n_latents)
        if not 0 < self.floor < 1:
            because, instead = "noise variances stay positive by it", "floor=1e-6"
            raise OptionError(explain(f"floor={self.floor!r}", "it is not in (0, 1)", because, instead))

    @property
    def ndim(self) -> int:
        return 2

    @property
    def least_rows(self) -> int:
        return 2

    @property
    def several_optima(self) -> bool:
        """Of one noise variance and complete rows the only maximum is the closed form: other stationary points are saddles."""
        return self.missing or not self.isotropic

    @property
    def may_fall(self) -> str:
        return ""

    def bound_to(self, rows: np.ndarray) -> "LinearGaussian":
        d = rows.shape[1]
        if self.n_latents >= d:
            asked = f"{self.n_latents} latents for {d} columns"
            because = "as many latents as columns leave nothing for the noise"
            raise OptionError(explain(asked, "there are too many", because, f"n_latents={max(d - 1, 1)} or fewer"))
        return replaced(self, missing=bool(np.isnan(rows).any()))

    def chunk(self, shape):
        return max(1, min(CHUNK, BLOCK // (self.n_latents + 1) ** 2)) if self.missing else CHUNK

    def collapsed(self, rows, weights):
        """The covariance, formed once: about the mean, in a second pass over the chunks."""
        if self.missing:
            return None
        total = weights.sum()
        mean = jnp.einsum("cn,cnd->d", weights, rows) / total

        def add(s, chunk):
            x, w = chunk
            root = (x - mean) * jnp.sqrt(w)[:, None]
            return s + root.T @ root, None

        scatter, _ = jax.lax.scan(add, jnp.zeros((rows.shape[2],) * 2, rows.dtype), (rows, weights))
        return Covariance(total[None], mean[None], (scatter / total)[None])

    def start(self, key, rows, random):
        return jax.tree.map(lambda a: a[0], self.starts(key[None], rows, jnp.asarray(random)[None], 0))

    def starts(self, keys, rows, random, before):
        """Given the noise the best W is known: so a start is a noise. The first is a share of each column's variance, the
        second one number (the optimum of probabilistic PCA, which is thus never missed), others and random ones anything."""
        mean, covariance = self._known(rows)
        own = jnp.diagonal(covariance)
        variance = jnp.where(own > (jnp.finfo(own.dtype).eps * mean) ** 2, own, 1.0)
        turn = before + jnp.cumsum(~random) - 1
        each = lambda key, at_random, i: self._start(key, at_random, i, mean, covariance, variance)
        return jax.vmap(each)(keys, random, turn)

    def _known(self, rows) -> tuple[Array, Array]:
        """(means, covariance), with means in place of what is missing."""
        if isinstance(rows, Covariance):
            return rows.mean[0], rows.covariance[0]
        mean, _, filled = column_moments(rows)
        return mean, jnp.cov(filled, rowvar=False, bias=True)

    def _start(self, key, random, i, mean, covariance, variance):
        k, d, dtype = self.n_latents, len(mean), mean.dtype
        eye = jnp.eye(k + 1, dtype=dtype)
        if not self.closed_form:
            drawn = jr.normal(key, (k, d), dtype) * jnp.sqrt(variance / k)
            return FactorParams(mean, drawn, self._at_least(variance / 2, variance), variance, eye)
        one, drawn = jnp.full(d, variance.mean()), variance * jnp.exp(-jr.exponential(key, (d,), dtype))
        unit = one if self.isotropic else jnp.where(random | (i > 1), drawn, jnp.where(i == 1, one, variance))
        root = jnp.sqrt(unit)
        scaled = covariance / (root[:, None] * root)
        values, vectors = jnp.linalg.eigh(scaled) if self.isotropic else leading(key, scaled, k)
        noise = jnp.maximum((jnp.trace(scaled) - values[-k:].sum()) / (d - k), 0.0)
        w = (vectors[:, -k:] * jnp.sqrt(jnp.maximum(values[-k:] - noise, 0.0))).T[::-1] * root
        if self.isotropic:
            w = jnp.where(random | (i > 0), jr.normal(key, (k, d), dtype) * jnp.sqrt(variance / k), w)
        return FactorParams(mean, w, self._at_least(noise * unit, variance), variance, eye)

    def _at_least(self, noise, variance):
        return jnp.maximum(noise, self.floor * (variance.mean() if self.isotropic else variance))

    # ---- E-step -----------------------------------------------------------------------------------------------
    def e_step(self, params, rows, weights):
        if isinstance(rows, Covariance):
            return self._e_step_of_covariance(params, rows)
        log_p, y, mask, mean, left = self._posterior(params, rows)
        u = jnp.concatenate([mean, jnp.ones_like(mean[:, :1])], 1)
        k = self.n_latents
        seen = jnp.ones_like(y) if mask is None else mask.astype(y.dtype)
        weighted = seen * weights[:, None]
        uu = (u[:, :, None] * u[:, None, :]).at[:, :k, :k].add(left)
        latent = jnp.einsum("n,nij->ij", weights, uu)
        joint = latent[None]
        if mask is not None:
            joint = (weighted.T @ uu.reshape(len(u), -1)).reshape(-1, k + 1, k + 1)
        cross, square = (weighted * y).T @ u, (weighted * y**2).sum(0)
        return weights @ log_p, Products(joint, cross, square, weighted.sum(0), latent)

    def _e_step_of_covariance(self, params, rows):
        n, w, d = rows.weight, params.components, params.mean.shape[0]
        step = rows.mean - params.mean
        s = rows.covariance + step[:, None] * step
        scaled = w / params.noise
        cholesky = jnp.linalg.cholesky(jnp.eye(len(w), dtype=w.dtype) + scaled @ w.T)
        gain = cho_solve((cholesky, True), scaled)  # E[z | x] = gain (x - mean)
        left = cho_solve((cholesky, True), jnp.eye(len(w), dtype=w.dtype))
        seen = gain @ s
        log_det = jnp.log(params.noise).sum() + 2 * jnp.log(jnp.diagonal(cholesky)).sum()
        square = jnp.diagonal(s)
        value = -0.5 * n * (d * LOG_2PI + log_det + (square / params.noise).sum() - (seen * scaled).sum())
        ez = gain @ step
        uu = jnp.block([[left + seen @ gain.T, ez[:, None]], [ez[None], jnp.ones((1, 1), w.dtype)]])
        cross = jnp.concatenate([seen.T, step[:, None]], 1)
        return value, Products(n * uu[None], n * cross, n * square, jnp.full(d, n), n * uu)

    def _posterior(self, params, rows):
        """(log p(x), x - mean with 0 where missing, mask, E[z | x], Cov[z | x])."""
        x, mask = observed(rows, self.missing)
        w, k = params.components, self.n_latents
        eye = jnp.eye(k, dtype=w.dtype)
        seen = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
        y = (x - params.mean) * seen
        scaled = w / params.noise
        if mask is None:
            m = (eye + scaled @ w.T)[None]
        else:
            m = eye + (seen @ (scaled[:, None] * w).reshape(k * k, -1).T).reshape(-1, k, k)
        cholesky = jnp.linalg.cholesky(m)
        inverse = solve_triangular(cholesky, jnp.broadcast_to(eye, m.shape), lower=True)
        half = jnp.einsum("nij,nj->ni", jnp.broadcast_to(inverse, (len(x), k, k)), y @ scaled.T)
        if mask is None:
            half = y @ scaled.T @ inverse[0].T
        log_det = seen @ jnp.log(params.noise) + 2 * jnp.log(jnp.diagonal(cholesky, axis1=1, axis2=2)).sum(1)
        log_p = -0.5 * (seen.sum(1) * LOG_2PI + log_det + (y**2 / params.noise).sum(1) - (half**2).sum(1))
        mean = half @ inverse[0] if mask is None else jnp.einsum("nji,nj->ni", inverse, half)
        return log_p, y, mask, mean, jnp.swapaxes(inverse, 1, 2) @ inverse

    # ---- M-step -----------------------------------------------------------------------------------------------
    def m_step(self, params, statistics):
        joint, cross, square, count, latent = statistics
        k, eps = self.n_latents, jnp.finfo(square.dtype).eps
        n = jnp.maximum(count, eps)
        scale = jnp.trace(joint, axis1=1, axis2=2)[:, None, None] / (k + 1)
        safe = joint + (eps * scale + jnp.finfo(square.dtype).tiny) * jnp.eye(k + 1, dtype=square.dtype)
        cholesky = jnp.linalg.cholesky(safe)
        if len(joint) == 1:
            solved = cho_solve((cholesky[0], True), cross.T).T
            fitted = ((solved @ joint[0]) * solved).sum(1)
        else:
            solved = jax.vmap(lambda c, b: cho_solve((c, True), b))(cholesky, cross)
            fitted = jnp.einsum("di,dij,dj->d", solved, joint, solved)
        seen = count > eps
        solved = jnp.where(seen[:, None], solved, jnp.concatenate([params.components.T, jnp.zeros((len(n), 1))], 1))
        left = jnp.maximum(square - 2 * (solved * cross).sum(1) + fitted, 0.0)
        noise = jnp.where(seen, left / n, params.noise)
        noise = jnp.full_like(noise, left.sum() / n.sum()) if self.isotropic else noise
        w, step = solved[:, :k].T, solved[:, k]
        alpha = latent[:k, k] / latent[k, k]  # z ~ N(alpha, R): back to N(0, I) by z = alpha + L z'
        spread = latent[:k, :k] / latent[k, k] - alpha[:, None] * alpha
        root = jnp.linalg.cholesky(spread)
        back = solve_triangular(root, jnp.concatenate([jnp.eye(k, dtype=w.dtype), -alpha[:, None]], 1), lower=True)
        turn = jnp.concatenate([back, jnp.eye(k + 1, dtype=w.dtype)[k:]])
        return FactorParams(
            params.mean + step + alpha @ w, root.T @ w, self._at_least(noise, params.variance), params.variance, turn
        )

    def rebased(self, statistics, old, new):
        joint, cross, square, count, latent = statistics
        step, turn = new.mean - old.mean, new.turn
        square = square - 2 * step * cross[:, -1] + step**2 * count
        cross = (cross - step[:, None] * joint[:, :, -1]) @ turn.T
        return Products(turn @ joint @ turn.T, cross, square, count, turn @ latent @ turn.T)

    def log_prior(self, params):
        return jnp.zeros((), params.mean.dtype)

    # ---- what came of it ----------------------------------------------------------------------------------------
    def n_parameters(self, params):
        k, d = params.components.shape
        return d + d * k - k * (k - 1) // 2 + (1 if self.isotropic else d)

    def faults(self, params):
        variance = np.asarray(params.variance)
        low = np.asarray(params.noise) <= 2 * self.floor * (variance.mean() if self.isotropic else variance)
        if not low.any():
            return []
        columns = listed(np.flatnonzero(low))
        why = f"The noise of {int(low.sum())} columns fell to its floor (Heywood case; columns {columns})"
        return [(1, f"{why}: they are explained exactly. Use fewer latents, or leave out columns that do not vary.")]

    def uninformed(self, params, statistics):
        few = np.flatnonzero(np.asarray(statistics.count) <= self.n_latents)
        if not len(few):
            return []
        return [
            (
                1,
                f"Columns {listed(few)} hold no more values than there are latents: their components are not determined.",
            )
        ]

    def log_prob(self, params, rows):
        return self._posterior(params, rows)[0]

    def posterior(self, params, rows) -> tuple[Float[Array, "n k"], Float[Array, "n k k"]]:
        """(E[z | x], Cov[z | x]) of each row."""
        _, _, _, mean, left = self._posterior(params, rows)
        return mean, jnp.broadcast_to(left, (len(mean), *left.shape[1:]))

    def sample(self, params, key, n):
        z_key, x_key = jr.split(key)
        z = jr.normal(z_key, (n, self.n_latents), params.mean.dtype)
        noise = jr.normal(x_key, (n, len(params.mean)), params.mean.dtype) * jnp.sqrt(params.noise)
        return params.mean + z @ params.components + noise, z

    def imputed(self, params, rows) -> Float[Array, "n d"]:
        """E[x | what is seen of it]; what is seen stays."""
        z, _ = self.posterior(params, rows)
        return jnp.where(jnp.isnan(rows), params.mean + z @ params.components, rows)


def leading(key: Array, s: Float[Array, "d d"], k: int) -> tuple[Float[Array, " m"], Float[Array, "d m"]]:
    """About the k leading eigenvalues (ascending) and eigenvectors of s, by subspace iteration: a start, no answer."""
    basis = jr.normal(key, (len(s), min(k + SPARE, len(s))), s.dtype)
    basis = jax.lax.fori_loop(0, POWERS, lambda _, b: jnp.linalg.qr(s @ b)[0], basis)
    values, turn = jnp.linalg.eigh(basis.T @ s @ basis)
    return values, basis @ turn


def FactorAnalysis(n_latents: int, *, floor: float = 1e-6) -> LinearGaussian:
    """Factor analysis: x = mean + z W + e with a noise variance for each column. See `LinearGaussian`.

    Example:    >>> import jensen as jn, numpy as np
                >>> rng = np.random.default_rng(0)
                >>> x = rng.normal(size=(300, 1)) @ rng.normal(size=(1, 5)) + rng.normal(size=(300, 5))
                >>> jn.em(jn.models.FactorAnalysis(1), x).params.components.shape
                (1, 5)
    """
    return LinearGaussian(n_latents, False, floor)


def ProbabilisticPCA(n_latents: int, *, floor: float = 1e-6, closed_form: bool = True) -> LinearGaussian:
    """Probabilistic PCA: x = mean + z W + e with one noise variance. See `LinearGaussian`.

    Complete rows: in closed form, W = U_k (Lambda_k - sigma^2 I)^(1/2), sigma^2 the mean of the other eigenvalues.
    """
    return LinearGaussian(n_latents, True, floor, closed_form)


def varimax(components: Any, n_iter: int = 500, tol: float = 1e-10) -> tuple[np.ndarray, np.ndarray]:
    """(rotated components R' W (k, d), rotation R (k, k)): the likelihood does not change, columns load on fewer factors.

    Definition: R maximises sum_i [mean_j l_ij^4 - (mean_j l_ij^2)^2] over rotations, l = R' W.
    Reference:  Kaiser (1958).  [kaiser1958varimax]
    """
    w = np.asarray(components, np.float64).T
    rotation, before = np.eye(w.shape[1]), 0.0
    for _ in range(n_iter):
        rotated = w @ rotation
        u, s, vt = np.linalg.svd(w.T @ (rotated**3 - rotated * (rotated**2).mean(0)))
        rotation = u @ vt
        if s.sum() <= before * (1 + tol):
            break
        before = s.sum()
    return (w @ rotation).T, rotation
