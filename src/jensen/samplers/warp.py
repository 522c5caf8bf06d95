"""A conditional Gaussian, fitted to draws: hierarchies straightened, so that q fits and chains can move in them."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import solve_triangular

from ..algorithms.gaussian import LOG_2PI, Gaussian, Mixture, StudentT, safe_cholesky

KNOTS = np.array([-1.2, 0.0, 1.2])  # of the soft hinges, in sd of a parent
WIDTH = 0.5
PARENTS = 3
RELATED = 0.12  # correlation from which a relation counts
RIDGE, BEND_RIDGE = 1e-3, 2e-2


def hinges(x: Any, xp: Any) -> Any:
    """(..., K) to (..., K, 3): soft hinges, linear far out on the right and flat on the left."""
    return WIDTH * xp.logaddexp(0.0, (x[..., None] - KNOTS) / WIDTH)


def scale_features(parents: Any, xp: Any) -> Any:
    """(..., K) to (..., 4 K): of the log-scale."""
    return xp.concatenate([parents, hinges(parents, xp).reshape((*parents.shape[:-1], -1))], -1)


def gates(x: Any, xp: Any) -> Any:
    """(..., K) to (..., K, 3): soft steps, flat far out on both sides."""
    return 1 / (1 + xp.exp(-xp.clip((x[..., None] - KNOTS) / WIDTH, -40.0, 40.0)))


def mean_features(parents: Any, xp: Any) -> Any:
    """(..., K) to (..., F): squares; gates; each parent gated by the others. Only squares move far out."""
    h = gates(parents, xp)
    gated = parents[..., :, None, None] * h[..., None, :, :]
    k = parents.shape[-1]
    off = [gated[..., i, j, :] for i in range(k) for j in range(k) if i != j]
    return xp.concatenate([parents**2, h.reshape((*parents.shape[:-1], -1)), *off], -1)


class Warp(eqx.Module):
    """u_A = m_A + R_A z_A; u_B = mu(u_A) + exp(s(u_A)) R_B z_B: the scale and mean of B follow its parents in A.

    Definition: mu_i = W_i x_A + c_i . f(parents of i), s_i = d_i . h(parents of i), x_A standardised u_A; f, h soft hinges.
    Arrays of JAX inside compiled programs, of NumPy on the host. The inverse is as cheap as the map, so the
    pushed-forward normal has a density.
    """

    a: Any
    b: Any
    bends: Any
    mean: Any
    root_a: Any
    root_b: Any
    centre: Any
    spread: Any
    parents: Any  # (B, K) positions in A
    linear: Any
    mean_weights: Any
    mean_offset: Any
    scale_weights: Any
    scale_offset: Any

    def conditional(self, u_a: Any, xp: Any) -> tuple[Any, Any]:
        """(mu, s) of B, for (..., A)."""
        x = (u_a - self.centre) / self.spread
        p = x[..., self.parents]
        mean = self.mean_offset + x @ self.linear.T + (mean_features(p, xp) * self.mean_weights).sum(-1)
        log_scale = self.scale_offset + (scale_features(p, xp) * self.scale_weights).sum(-1)
        return mean, log_scale

    def __call__(self, z: Float[Array, " D"]) -> tuple[Float[Array, " D"], Float[Array, ""]]:
        """(u, log |det du/dz|)."""
        n = self.a.shape[0]
        u_a = self.mean + self.root_a @ z[:n]
        mean, s = self.conditional(u_a, jnp)
        u_b = mean + jnp.exp(s) * (self.root_b @ z[n:])
        log_det = jnp.log(jnp.diagonal(self.root_a)).sum() + jnp.log(jnp.diagonal(self.root_b)).sum() + s.sum()
        return jnp.zeros(z.shape).at[self.a].set(u_a).at[self.b].set(u_b), log_det


@dataclasses.dataclass(frozen=True)
class Warped:
    """The pushed-forward normal on the host: `sample`, `log_prob`, `whiten`, `apply`, as a Gaussian has them."""

    map: Any  # a Warp of numpy arrays
    diagonal = False

    @property
    def dim(self) -> int:
        return self.map.a.size + self.map.b.size

    def apply(self, z: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        return self.push(z)[0]

    def push(self, z: Float[np.ndarray, "n D"]) -> tuple[np.ndarray, np.ndarray]:
        """(u, log |det du/dz|)."""
        w, n = self.map, self.map.a.size
        u_a = w.mean + z[:, :n] @ w.root_a.T
        mean, s = w.conditional(u_a, np)
        u = np.empty_like(z)
        u[:, w.a], u[:, w.b] = u_a, mean + np.exp(np.clip(s, -300, 300)) * (z[:, n:] @ w.root_b.T)
        return u, self._log_det(s)

    def _log_det(self, s: np.ndarray) -> np.ndarray:
        roots = np.log(np.diagonal(self.map.root_a)).sum() + np.log(np.diagonal(self.map.root_b)).sum()
        return roots + s.sum(1)

    def whiten(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        return self.pull_back(u)[0]

    def pull_back(self, u: Float[np.ndarray, "n D"]) -> tuple[np.ndarray, np.ndarray]:
        """(z, log |det du/dz|)."""
        w = self.map
        u_a = u[:, w.a]
        mean, s = w.conditional(u_a, np)
        z_a = solve_triangular(w.root_a, (u_a - w.mean).T, lower=True, check_finite=False).T
        e = (u[:, w.b] - mean) * np.exp(np.clip(-s, -300, 300))
        z_b = solve_triangular(w.root_b, e.T, lower=True, check_finite=False).T
        return np.concatenate([z_a, z_b], 1), self._log_det(s)

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        return self.apply(rng.standard_normal((n, self.dim)))

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        z, log_det = self.pull_back(u)
        return -0.5 * (z**2).sum(1) - 0.5 * self.dim * LOG_2PI - log_det

    def proposal(self) -> Mixture:
        """With heavy tails: in A alone, so that what sets the scales goes far while the rest follows; and in all."""
        return Mixture((self, HeavyWarped(self, 3.0, False), HeavyWarped(self, 5.0, True)), np.array([0.5, 0.35, 0.15]))


@dataclasses.dataclass(frozen=True)
class HeavyWarped:
    """A warp of a multivariate t: in the coordinates of A, or (`everywhere`) in all of them."""

    base: Warped
    df: float
    everywhere: bool

    @property
    def dim(self) -> int:
        return self.base.dim

    def _split(self) -> tuple[StudentT, int]:
        n = self.dim if self.everywhere else self.base.map.a.size
        return StudentT(Gaussian(np.zeros(n), np.ones(n)), self.df), n

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        t, k = self._split()
        return self.base.apply(np.concatenate([t.sample(rng, n), rng.standard_normal((n, self.dim - k))], 1))

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        z, log_det = self.base.pull_back(u)
        t, k = self._split()
        rest = z[:, k:]
        return t.log_prob(z[:, :k]) - 0.5 * (rest**2).sum(1) - 0.5 * rest.shape[1] * LOG_2PI - log_det


# ---- learning -------------------------------------------------------------------------------------------------------
class Structure(NamedTuple):
    """Which coordinates condition (A), which follow (B), the parents of each of B (positions in A), and whether a
    parent bends its mean (B, K)."""

    a: np.ndarray
    b: np.ndarray
    parents: np.ndarray
    bends: np.ndarray


def relations(u: Float[np.ndarray, "n D"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[i, j]: how much the conditional scale of i follows j, how much j bends the mean of i (correlations); and the
    partial correlations."""
    x = (u - u.mean(0)) / np.maximum(u.std(0), 1e-300)
    n, d = x.shape
    precision = np.linalg.inv(x.T @ x / n + 1e-6 * np.eye(d))
    root = np.sqrt(np.diagonal(precision))
    e = (x @ precision) / root  # residual of each given all others, unit size
    # bounded transforms keep single far-out draws from making correlations
    scale = np.abs(_correlation(np.log(e**2 + 1e-4), np.tanh(x)))
    bend = np.abs(_correlation(np.tanh(e), np.minimum(x**2, 9.0)))
    np.fill_diagonal(scale, 0)
    np.fill_diagonal(bend, 0)
    return scale, bend, precision / root[:, None] / root


def split(u: Float[np.ndarray, "n D"]) -> Structure | None:
    """None where nothing is related. Greedily by influence.

    A follower whose scale, given A alone, no longer follows belongs to A itself: the mean of a hierarchy looks as narrow
    as its group only once the members are known.
    """
    scale, bend, partial = relations(u)
    r = np.maximum(scale, bend)
    influence = (np.where(r > RELATED, r, 0) ** 2).sum(0)
    a: list[int] = []
    b: set[int] = set()
    for j in np.argsort(-influence):
        followers = {int(i) for i in np.nonzero(r[:, j] > RELATED)[0]} - set(a)
        if influence[j] < RELATED**2 or int(j) in b or not followers:
            continue
        a.append(int(j))
        b |= followers
    x = (u - u.mean(0)) / np.maximum(u.std(0), 1e-300)
    for _ in range(4):
        if not b or not a:
            break
        index = np.array(sorted(b))
        own = _follow(x[:, index], x[:, a])
        hubs = index[(own < 0.5 * r[index][:, a].max(1)) & (own < 1.5 * RELATED)]
        if not len(hubs) or len(hubs) == len(b):
            break
        a, b = [*a, *hubs.tolist()], b - set(hubs.tolist())
    if not b:
        return None
    index_a, index_b = np.array([j for j in range(len(r)) if j not in b]), np.array(sorted(b))
    strength = np.maximum(r, np.abs(partial))[np.ix_(index_b, index_a)]
    parents = np.argsort(-strength, 1)[:, : min(PARENTS, len(index_a))]
    bends = np.take_along_axis((bend > np.maximum(scale, RELATED))[np.ix_(index_b, index_a)], parents, 1)
    return Structure(index_a, index_b, parents, bends)


def _follow(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """For each column of y, the largest correlation of its log squared residual, given x linearly, with a column of x."""
    design = np.concatenate([np.ones((len(x), 1)), x], 1)
    e = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return np.abs(_correlation(np.log((e / e.std(0)) ** 2 + 1e-4), np.tanh(x))).max(1)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    standard = lambda v: (v - v.mean(0)) / np.maximum(v.std(0), 1e-300)
    return standard(a).T @ standard(b) / len(a)


def learn(u: Float[np.ndarray, "n D"], structure: Structure | None = None, most: int = 3000) -> Warped | None:
    """The warp fitted to draws by maximum likelihood, or None where a Gaussian does as well."""
    if len(u) > most:
        u = u[np.linspace(0, len(u) - 1, most).astype(int)]
    structure = structure or split(u)
    if structure is None:
        return None
    a, b, parents, bends = structure
    u_a = u[:, a]
    centre, spread = u_a.mean(0), np.maximum(u_a.std(0), 1e-300)
    x = (u_a - centre) / spread
    linear, mean_w, mean_0, scale_w, scale_0 = _regressions(x, u[:, b], parents, bends)
    root_a = safe_cholesky(np.atleast_2d(np.cov(u_a.T)))
    make = lambda root_b: Warped(
        Warp(a, b, bends, centre, root_a, root_b, centre, spread, parents, linear, mean_w, mean_0, scale_w, scale_0)
    )
    mean, s = make(np.eye(len(b))).map.conditional(u_a, np)
    e = (u[:, b] - mean) * np.exp(-s)
    if not np.isfinite(e).all() or not (e.std(0) > 0).all():
        return None
    n = len(e)
    weight = n / (n + 5.0 * len(b))
    covariance = np.atleast_2d(np.cov(e.T))
    return make(safe_cholesky(weight * covariance + (1 - weight) * np.diag(np.diagonal(covariance))))


def structure_of(warped: Warped) -> Structure:
    w = warped.map
    return Structure(w.a, w.b, w.parents, w.bends)


def _regressions(x: np.ndarray, y: np.ndarray, parents: np.ndarray, bends: np.ndarray):
    """Mean and log-scale of every column of y given A; columns with the same parents share their features."""
    n, k = x.shape
    n_mean, n_scale = mean_features(x[:1, parents[0]], np).shape[1], scale_features(x[:1, parents[0]], np).shape[1]
    weights, betas = np.empty((y.shape[1], 1 + k + n_mean)), np.empty((y.shape[1], 1 + n_scale))
    ones = np.ones((n, 1))
    for key in np.unique(parents, axis=0):
        mine = np.nonzero((parents == key).all(1))[0]
        design = np.concatenate([ones, x, mean_features(x[:, key], np)], 1)
        g = np.concatenate([ones, scale_features(x[:, key], np)], 1)
        stiff = 2 * n * np.full(g.shape[1], BEND_RIDGE)  # hinges must be earned: what is linear extrapolates
        stiff[: 1 + len(key)] = 2 * n * RIDGE
        inverse = np.linalg.inv(2 * g.T @ g + np.diag(stiff))
        for i in mine:
            penalty = n * np.full(design.shape[1], RIDGE)
            # far out a mean must not move with what sets the scale, unless the draws insist
            penalty[1 + key[~bends[i]]] = n * BEND_RIDGE
            penalty[1 + k : 1 + k + len(key)] = n * np.where(bends[i], RIDGE, 1e6)
            weights[i], betas[i] = _regress(design, penalty, g, inverse, stiff, y[:, i])
    return weights[:, 1 : k + 1], weights[:, k + 1 :], weights[:, 0], betas[:, 1:], betas[:, 0]


def _regress(design, penalty, g, inverse, stiff, y) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares for the mean and Fisher scoring for the log-scale, alternating."""
    n, centre, unit = len(y), float(y.mean()), max(float(y.std()), 1e-300)
    y = (y - centre) / unit
    norm = np.maximum(np.sqrt((design**2).mean(0)), 1e-12)
    design = design / norm
    beta, s = np.zeros(g.shape[1]), np.zeros(n)
    for _ in range(5):
        w = np.exp(-2 * s)
        weighted = design * np.minimum(w / w.mean(), 1e5)[:, None]
        weights = np.linalg.solve(weighted.T @ design + np.diag(penalty), weighted.T @ y)
        square = (y - design @ weights) ** 2
        for _ in range(4):
            beta = beta + inverse @ (g.T @ (np.minimum(square * np.exp(-2 * s), 50.0) - 1) - stiff * beta)
            s = np.clip(g @ beta, -12, 12)
    weights = unit * weights / norm
    weights[0] += centre
    beta[0] += np.log(unit)
    return weights, beta


def to_device(warped: Warped) -> Warp:
    """The map with JAX arrays."""
    import jax

    return jax.tree.map(jnp.asarray, warped.map)
