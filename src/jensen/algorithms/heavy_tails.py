"""A q with tails of their own in each direction: importance weights where a Gaussian's tails end too soon."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from .gaussian import Gaussian, Mixture, StudentT, one_gaussian
from .importance import Weighted, corrected, n_weighed, weigh
from .natural_gradient import NaturalGradient
from .solver import AbstractSolver, Solution
from .target import Target

FREEDOM = np.array([1.0, 1.5, 2.0, 3.0, 5.0, 9.0, 20.0, 60.0])
EM_STEPS = 12
ROUNDS = 5
GOOD_KHAT, GOOD_ESS = 0.4, 0.65  # at which there is no need of another round
LEAST = 25  # effective draws that a fit rests on
FEW = 30  # dimensions in which weights can do
FEW_ENOUGH = 12  # dimensions in which weights of a q that is fitted anew do better as a rule
HEAVY = 9.0  # degrees of freedom, at most, of a direction whose tail a Gaussian ends too soon


@dataclasses.dataclass(frozen=True)
class HeavyTails:
    """u = base(loc + scale t), t of independent Student t's with a number of degrees of freedom each."""

    base: Gaussian
    loc: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    df: Float[np.ndarray, " D"]
    diagonal = False

    @property
    def dim(self) -> int:
        return self.base.dim

    @property
    def gaussian(self) -> Gaussian:
        """Of the same place and core: its moments may not exist."""
        return Gaussian(self.base.apply(self.loc[None])[0], _scaled(self.base.root, self.scale))

    @property
    def mean(self) -> Float[np.ndarray, " D"]:
        return self.gaussian.mean

    @property
    def sd(self) -> Float[np.ndarray, " D"]:
        return self.gaussian.sd

    @property
    def root(self) -> Float[np.ndarray, "..."]:
        return self.gaussian.root

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        return self.base.apply(self.loc + self.scale * rng.standard_t(self.df, (n, self.dim)))

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        z = (self.base.whiten(u) - self.loc) / self.scale
        return _log_t(z, self.df).sum(1) - np.log(self.scale).sum() - self.base.log_det

    def proposal(self) -> Mixture:
        """With a share that is wider and heavier still."""
        wider = dataclasses.replace(self, scale=1.5 * self.scale, df=np.maximum(0.7 * self.df, FREEDOM[0]))
        return Mixture((self, wider, StudentT(self.gaussian, 5.0)), np.array([0.7, 0.2, 0.1]))


def _scaled(root: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return root * scale  # of columns, or of a diagonal


def _log_t(z: np.ndarray, df: np.ndarray) -> np.ndarray:
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * math.pi)
    return constant - 0.5 * (df + 1) * np.log1p(z**2 / df)


def fit_tails(base: Gaussian, weighed: Weighted, freedom: np.ndarray = FREEDOM) -> HeavyTails:
    """Maximum likelihood of each whitened coordinate alone, by EM for every number of degrees of freedom."""
    alive = weighed.weights > 0
    z, w = base.whiten(weighed.u[alive]), weighed.weights[alive]
    order = np.argsort(z, axis=0)
    mass = np.cumsum(w[order], axis=0)
    quantile = lambda p: np.take_along_axis(z, np.take_along_axis(order, (mass >= p).argmax(0)[None], 0), 0)[0]
    middle, width = quantile(0.5), np.maximum(quantile(0.75) - quantile(0.25), 1e-12) / 1.349
    best = np.full(z.shape[1], -np.inf)
    loc, scale, df = middle, width, np.full(z.shape[1], freedom[0])
    for nu in freedom:
        m, s = middle, width
        for _ in range(EM_STEPS):
            v = w[:, None] * (nu + 1) / (nu + ((z - m) / s) ** 2)
            m = (v * z).sum(0) / v.sum(0)
            s = np.sqrt(np.maximum((v * (z - m) ** 2).sum(0), 1e-300))
        value = w @ (_log_t((z - m) / s, nu) - np.log(s))
        better = value > best
        best, loc = np.where(better, value, best), np.where(better, m, loc)
        scale, df = np.where(better, s, scale), np.where(better, nu, df)
    return HeavyTails(base, loc, scale, df)


class Tails(AbstractSolver):
    """Student t tails in each of q's principal directions, fitted to weighted draws, drawn from and weighed again.

    Definition: adaptive importance sampling, from the weights of the Gaussian below; in more than 12 dimensions where
                some direction's tail is a t's of at most 9 degrees of freedom.
    Cost:       8,192 evaluations a round, two to five rounds: the first is fitted to weights that did not do.
    Reference:  Cappe, Douc, Guillin, Marin and Robert (2008).  [cappe2008adaptive]
    """

    name: ClassVar = "student-t"
    starts_from: ClassVar = NaturalGradient

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start: Any = start
        base, weighed, best, q = one_gaussian(start.q), start.findings["weighted"], None, None
        for i in range(ROUNDS):
            if weighed.ess * len(weighed.u) < LEAST or target.budget.spent or (i > 1 and weighed is not best):
                break
            if (
                i == 0
                and target.dim > FEW_ENOUGH
                and fit_tails(base, weighed, FREEDOM[FREEDOM >= HEAVY]).df.min() > HEAVY
            ):
                return start  # what is wrong with q is not its tails
            candidate = fit_tails(base, weighed)
            weighed = weigh(target, candidate.proposal(), n_weighed(target), seed + 1000 * (i + 1))
            if best is None or _quality(weighed) > _quality(best):
                best, q = weighed, candidate
            if i > 0 and weighed.khat < GOOD_KHAT and weighed.ess > GOOD_ESS:
                break
        if best is None:
            return start
        return corrected(best, start, len(best.u) // 2, seed, q)


def _quality(weighed: Weighted) -> float:
    return weighed.ess - max(weighed.khat - 0.3, 0.0)
