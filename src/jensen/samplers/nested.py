"""Nested Laplace: few hyperparameters by their marginal, all else Gaussian given them; and weights that say how well."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from ..algorithms.gaussian import Gaussian, Mixture, StudentT, one_gaussian, safe_cholesky
from ..algorithms.importance import Weighted, corrected, n_weighed, weigh, weighted
from ..algorithms.natural_gradient import NaturalGradient
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import Target

FEW = 6  # hyperparameters
CENTRES = 400
FAR, TEMPERED = 0.4, 0.4  # share of the centres that are drawn by weights of this power
KERNEL = 5.0  # degrees of freedom
ROUNDS = 4  # on the marginal
DRAWS = 2048  # a round
WIDE, HEAVY = 2.0, 3.0  # the first proposal: times as wide as the Gaussian's, and its degrees of freedom
ADAPTED = 3  # rounds of all coordinates
LEAST = 100.0  # effective draws by which the rest is fitted anew
GOOD_KHAT, GOOD_ESS = 0.4, 0.65
SLACK = 0.05  # of quality: the later round is the one that is adapted
SETTLED = 0.1  # sd by which a mean of the rest may still be moved


@dataclasses.dataclass(frozen=True)
class Kernels:
    """A density of few coordinates: t kernels of one shape at draws of it."""

    centres: Float[np.ndarray, "M K"]
    root: Float[np.ndarray, "K K"]
    df: float = KERNEL

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n K"]:
        at = self.centres[rng.permutation(np.arange(n) % len(self.centres))]
        return at + self._kernel.sample(rng, n)

    @property
    def _kernel(self) -> StudentT:
        return StudentT(Gaussian(np.zeros(self.root.shape[0]), self.root), self.df)

    def log_prob(self, x: Float[np.ndarray, "n K"]) -> Float[np.ndarray, " n"]:
        kernel, n = self._kernel, len(self.centres)
        away = lambda part: (part[:, None] - self.centres).reshape(-1, x.shape[1])
        parts = [logsumexp(kernel.log_prob(away(x[i : i + 512])).reshape(-1, n), axis=1) for i in range(0, len(x), 512)]
        return np.concatenate([np.zeros(0), *parts]) - np.log(n)

    def wider(self, factor: float) -> "Kernels":
        return Kernels(self.centres, factor * self.root, HEAVY)


@dataclasses.dataclass(frozen=True)
class Nested:
    """q(u) = k(u_A) N(u_B), k of kernels: coordinates in which B hardly depends on A."""

    a: Int[np.ndarray, " K"]
    b: Int[np.ndarray, " B"]
    hyper: Kernels
    rest: Gaussian | StudentT
    diagonal = False

    @property
    def dim(self) -> int:
        return self.a.size + self.b.size

    @property
    def gaussian(self) -> Gaussian:
        """With its moments."""
        core = self.rest.base if isinstance(self.rest, StudentT) else self.rest
        mean, root = np.zeros(self.dim), np.zeros((self.dim, self.dim))
        mean[self.a], mean[self.b] = self.hyper.centres.mean(0), core.mean
        spread = np.atleast_2d(np.cov(self.hyper.centres.T)) + 1.5 * self.hyper.root @ self.hyper.root.T
        root[np.ix_(self.a, self.a)] = spread
        root[np.ix_(self.b, self.b)] = core.root @ core.root.T if core.root.ndim == 2 else np.diag(core.root**2)
        return Gaussian(mean, safe_cholesky(root))

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        u = np.empty((n, self.dim))
        u[:, self.a], u[:, self.b] = self.hyper.sample(rng, n), self.rest.sample(rng, n)
        return u

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        return self.hyper.log_prob(u[:, self.a]) + self.rest.log_prob(u[:, self.b])

    def proposal(self) -> Mixture:
        """With hyperparameters further out, and with heavy tails in all the rest."""
        core = self.rest.base if isinstance(self.rest, StudentT) else self.rest
        out = dataclasses.replace(self, hyper=self.hyper.wider(3.0))
        heavy = dataclasses.replace(self, rest=StudentT(core, 5.0))
        return Mixture((self, out, heavy), np.array([0.75, 0.1, 0.15]))


@dataclasses.dataclass
class NestedLaplace(AbstractSolver):
    """p(u_A) by Laplace's method, u_B Gaussian given u_A, in coordinates in which that Gaussian is one and the same.

    Definition: log p(u_A) = log p(u_A, 0) there, up to a constant; adaptive importance sampling of it gives the kernels. Draws
                of all coordinates are weighed, and the Gaussian of the rest is fitted anew to them.
    Arguments:  b: which coordinates are u_B.
    Cost:       2,048 evaluations a round of four, 8,192 a round of at most three.
    Reference:  Rue, Martino and Chopin (2009); Tierney and Kadane (1986).  [rue2009approximate]
    """

    b: Int[np.ndarray, " B"]
    name: ClassVar = "nested-laplace"
    starts_from: ClassVar = NaturalGradient
    about: ClassVar = (
        "The few parameters that set scales are drawn by their own distribution, all others from the Gaussian that "
        "they follow given those."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start: Any = start
        a, base = np.setdiff1d(np.arange(target.dim), self.b), one_gaussian(start.q)
        if a.size > FEW or not self.b.size:
            return start
        hyper = self._marginal(target, a, base, seed)
        q, best, weighed = None, None, None
        rest = Gaussian(np.zeros(self.b.size), np.ones(self.b.size))
        for i in range(ADAPTED if hyper is not None else 0):
            candidate = Nested(a, self.b, hyper, rest)
            weighed = weigh(target, candidate.proposal(), n_weighed(target), seed + 3000 * (i + 1))
            if best is None or _quality(weighed) > _quality(best) - SLACK:
                best, q = weighed, candidate
            moved = np.abs(weighed.weights @ weighed.u[:, self.b] - rest.mean) / rest.root
            if (weighed.khat < GOOD_KHAT and weighed.ess > GOOD_ESS and moved.max() < SETTLED) or target.budget.spent:
                break
            if weighed.ess * len(weighed.u) < LEAST:
                break
            hyper, rest = _kernels(weighed.u[:, a], weighed.log_weights, seed + i), _rest(weighed, self.b)
        return start if best is None else corrected(best, start, len(best.u) // 2, seed, q)

    def _marginal(self, target: Target, a: np.ndarray, base: Gaussian, seed: int) -> Kernels | None:
        """Kernels at draws of u_A from its Laplace marginal."""
        covariance = (base.root @ base.root.T)[np.ix_(a, a)] if not base.diagonal else np.diag(base.root[a] ** 2)
        proposal: Any = StudentT(Gaussian(base.mean[a], WIDE * safe_cholesky(covariance)), HEAVY)
        found = None
        for i in range(ROUNDS):
            rng = np.random.default_rng([seed, 51, i])
            x = proposal.sample(rng, DRAWS)
            u = np.zeros((DRAWS, target.dim))
            u[:, a] = x
            w = weighted(x, target.value(u), proposal.log_prob(x))
            if w.ess * DRAWS < 5:
                return found
            found = _kernels(x, w.log_weights, seed + i)
            proposal = Mixture((found, found.wider(3.0)), np.array([0.7, 0.3]))
        return found


def _kernels(x: np.ndarray, log_w: np.ndarray, seed: int) -> Kernels:
    """At resampled draws, as wide as Scott's rule says; some of them by tempered weights: what is far out must be drawn too."""
    w = np.exp(log_w)
    parts = []
    for power, share in ((1.0, 1 - FAR), (TEMPERED, FAR)):
        n, p = round(share * CENTRES), np.exp(power * log_w)
        at = np.searchsorted(np.cumsum(p), (np.arange(n) + 0.5) / n * p.sum())
        parts.append(np.minimum(at, len(w) - 1))
    index = np.random.default_rng([seed, 52]).permutation(np.concatenate(parts))
    centred = (x - w @ x) * np.sqrt(w)[:, None]
    covariance = centred.T @ centred + 1e-12 * np.diag((x.std(0) + 1e-300) ** 2)
    width = CENTRES ** (-1 / (x.shape[1] + 4))
    return Kernels(x[index], width * safe_cholesky(covariance))


def _rest(weighed: Weighted, b: np.ndarray) -> Gaussian:
    """Mean and variances by the weights, shrunk to the standard normal's."""
    n, u = weighed.ess * len(weighed.u), weighed.u[:, b]
    share = n / (n + LEAST)
    mean = weighed.weights @ u
    variance = weighed.weights @ (u - mean) ** 2
    return Gaussian(share * mean, np.sqrt(share * variance + 1 - share))


def _quality(weighed: Weighted) -> float:
    return weighed.ess - max(weighed.khat - 0.3, 0.0)
