"""Deterministic ADVI: a mean-field Gaussian on fixed draws, its accuracy, and linear-response covariances."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from .gaussian import Gaussian, safe_cholesky, standardised_draws
from .low_rank import DENSE
from .solver import AbstractSolver, Solution
from .starts import diagonal_start
from .target import Target

VARIABILITY = 0.1  # standard error of a mean from the choice of the draws, in sd, that is small enough
DIFFERENCE = 1e-4  # of Hessian products and columns, in units of the local scale
STEPS = 12  # of Newton's method before the coordinates are scaled anew
TOLERANCE = 1e-3  # of the gradient in whitened coordinates: of a mean in sd, of a log sd
FEW = 60  # dimensions up to which the Hessian costs less than the products with it
WORST = 1e30  # where the objective is undefined: large, but finite for the trust region's arithmetic


@dataclasses.dataclass
class DADVI(AbstractSolver):
    """Deterministic mean-field ADVI, with linear-response covariances.

    Definition: maximise over (m, log s) on fixed draws z_n: (1/N) sum_n log p(m + s z_n) + sum_i log s_i, by Newton's
                method in a trust region (above 60 dimensions with conjugate gradients), in coordinates scaled by the
                current s. Linear response: the covariance is the top left block of (-Hessian)^-1 at the optimum: exact
                for a Gaussian posterior.
    Arguments:  n_draws: to begin with (antithetic, scaled to unit second moments); doubled, up to `most_draws`, until
                the optimum's standard error is below a tenth of an sd in each mean.
                linear_response: for D <= 600 q gets the linear-response covariance, not the mean-field one.
    Cost:       `n_draws` gradients for each step of the optimiser; 2 D `n_draws` for the covariance.
    Reference:  Giordano, Ingram and Broderick (2024); Giordano, Broderick and Jordan (2018).  [giordano2024dadvi]
    """

    n_draws: int = 30
    linear_response: bool = True
    most_draws: int = 240
    max_iterations: int = 200
    name: ClassVar = "dadvi"
    about: ClassVar = (
        "A Gaussian fitted coordinate by coordinate on fixed draws (deterministic ADVI); where there are not too "
        "many, correlations are added afterwards."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        q = diagonal_start(target, start, seed)
        if q is None:
            return Solution(None, "diverged", findings={"no_start": True})
        n, history = 2 * ((self.n_draws + 1) // 2), []
        while True:
            fixed = FixedDraws(target, antithetic_draws(n, target.dim, seed))
            q, why = self.climb(fixed, q, history)
            if not history:
                return Solution(q if why == "budget" else None, why)
            dense = target.dim <= DENSE and not target.budget.spent
            hessian = fixed.hessian(q) if dense else None
            if hessian is not None:
                q, hessian = fixed.polished(q, hessian)
            error = fixed.variability(q, hessian)
            if error < VARIABILITY or 2 * n > self.most_draws or why != "converged" or target.budget.spent:
                break
            n *= 2
        findings = {"variability": error, "n_draws": n, "mean_field": q}
        if self.linear_response and hessian is not None:
            q, findings["linear_response"] = linear_response(q, hessian)
        return Solution(q, why, history=history, findings=findings)

    def climb(self, fixed: "FixedDraws", q: Gaussian, history: list[float]) -> tuple[Gaussian, str]:
        """Rounds of Newton's method, each in the coordinates scaled by the s of the one before."""
        q, value = fixed.defined(q)
        if not np.isfinite(value):
            return q, "budget" if fixed.target.budget.spent else "diverged"
        history.append(value)
        radius, stalls = np.sqrt(2.0 * q.dim), 0
        for _ in range(0, self.max_iterations, STEPS):
            if fixed.target.budget.spent:
                return q, "budget"
            trust = Round(fixed, q)
            new, gain, slope = trust.run(radius)
            q = new
            history.append(history[-1] + gain)
            if slope < TOLERANCE:
                return q, "converged"
            stalls = stalls + 1 if gain < 1e-7 * (1 + abs(history[-1])) else 0
            if stalls >= 3:  # the gradient is as small as rounding, or a kink, lets it be
                return q, "converged" if slope < 30 * TOLERANCE else "stalled"
            radius = np.sqrt(2.0 * q.dim) if gain > 0 else radius / 64
        return q, "budget"


def antithetic_draws(n: int, dim: int, seed: int) -> Float[np.ndarray, "n D"]:
    """Pairs z, -z with second moments exactly 1, and exactly uncorrelated where there are enough of them."""
    half = n // 2
    if half > 2 * dim:
        z = standardised_draws(half, dim, seed)
    else:
        z = np.random.default_rng([seed, 35]).standard_normal((half, dim))
        z /= np.sqrt((z**2).mean(0))
    return np.concatenate([z, -z])


@dataclasses.dataclass
class FixedDraws:
    """The objective: the ELBO of a diagonal Gaussian on fixed draws, without its constant."""

    target: Target
    eps: Float[np.ndarray, "N D"]

    def value_and_grad(self, m: np.ndarray, log_s: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(ELBO, its gradients in m and in log s)."""
        with np.errstate(over="ignore"):
            noise = np.exp(log_s) * self.eps
        u = m + noise
        if not np.isfinite(u).all():
            return -np.inf, 0 * m, 0 * m
        value, g = self.target(u)
        return float(value.mean() + log_s.sum()), g.mean(0), (g * noise).mean(0) + 1

    def defined(self, q: Gaussian) -> tuple[Gaussian, float]:
        """q, narrowed until the density is defined at all draws."""
        for _ in range(40):
            value = self.value_and_grad(q.mean, np.log(q.root))[0]
            if np.isfinite(value) or self.target.budget.spent:
                break
            q = Gaussian(q.mean, q.root / 3)
        return q, value

    def hessian(self, q: Gaussian) -> Float[np.ndarray, "2D 2D"]:
        """Of the objective in (m / s, log s), from the Hessian's columns at each draw. Cost: 2 D N gradients."""
        d, s, eps = q.dim, q.root, self.eps
        u, n = q.apply(eps), len(eps)
        out = np.zeros((2 * d, 2 * d))
        for j in range(d):
            step = np.zeros(d)
            step[j] = DIFFERENCE * s[j]
            g = self.target(np.concatenate([u + step, u - step]))[1]
            column = (g[:n] - g[n:]) / (2 * DIFFERENCE) * s  # of the Hessian at each draw, whitened
            out[:d, j], out[d:, j] = column.mean(0), (column * eps).mean(0)
            out[:d, d + j], out[d:, d + j] = (
                (column * eps[:, j : j + 1]).mean(0),
                (column * eps * eps[:, j : j + 1]).mean(0),
            )
        first = (self.target(u)[1] * s * eps).mean(0)
        out[np.arange(d, 2 * d), np.arange(d, 2 * d)] += first
        return (out + out.T) / 2

    def polished(self, q: Gaussian, hessian: np.ndarray) -> tuple[Gaussian, np.ndarray]:
        """(q, Hessian in its units) after Newton steps with this Hessian while they gain.

        What is within tolerance in units of s may be far in those of a stiff combination of coordinates.
        """
        d = q.dim
        value, g_m, g_s = self.value_and_grad(q.mean, np.log(q.root))
        for _ in range(4):
            if self.target.budget.spent:
                break
            step = -np.linalg.lstsq(hessian, np.concatenate([g_m * q.root, g_s]), rcond=1e-14)[0]
            step *= min(1.0, 1 / max(float(np.abs(step[d:]).max()), 1e-300))
            new = Gaussian(q.mean + q.root * step[:d], q.root * np.exp(step[d:]))
            new_value, *gradients = self.value_and_grad(new.mean, np.log(new.root))
            if not new_value > value:
                break
            unit = np.concatenate([new.root / q.root, np.ones(d)])
            q, value, (g_m, g_s), hessian = new, new_value, gradients, hessian * unit[:, None] * unit
        return q, hessian

    def variability(self, q: Gaussian, hessian: np.ndarray | None) -> float:
        """Largest standard error of a mean, in sd, from the choice of the draws: H^-1 var(gradients) H^-1 / n."""
        d, half = q.dim, len(self.eps) // 2
        g = self.target(q.apply(self.eps))[1] * q.root
        both = (g[:half] + g[half:]) / 2  # pairs: what is even in z cancels in the mean's gradient
        if hessian is None:
            return float((both.std(0) / np.sqrt(half)).max())
        odd = (g * self.eps)[:half] / 2 + (g * self.eps)[half:] / 2
        terms = np.concatenate([both, odd - odd.mean(0)], 1)
        moved = np.linalg.lstsq(hessian, terms.T, rcond=1e-10)[0][:d]
        return float((moved.std(1) / np.sqrt(half)).max())


class Round:
    """A few steps of trust-region Newton in x = (m / s, log s), s fixed at the start of the round."""

    def __init__(self, fixed: FixedDraws, q: Gaussian):
        self.fixed, self.q = fixed, q
        self.seen: dict[bytes, tuple[float, np.ndarray]] = {}

    def at(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(minus the ELBO, its gradient), remembered: the optimiser asks for both, and for products, at one point."""
        key = x.tobytes()
        if key not in self.seen:
            self.seen = {key: self._evaluated(x)} if len(self.seen) > 3 else {**self.seen, key: self._evaluated(x)}
        return self.seen[key]

    def _evaluated(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        d, s = self.q.dim, self.q.root
        value, g_m, g_s = self.fixed.value_and_grad(self.q.mean + s * x[:d], np.log(s) + x[d:])
        return (-value if np.isfinite(value) else WORST), -np.concatenate([g_m * s, g_s])

    def hessian(self, x: np.ndarray) -> np.ndarray:
        d, s = self.q.dim, self.q.root
        q = Gaussian(self.q.mean + s * x[:d], s * np.exp(x[d:]))
        unit = np.concatenate([s / q.root, np.ones(d)])
        return -self.fixed.hessian(q) * unit[:, None] * unit

    def product(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(v)
        if length == 0 or self.fixed.target.budget.spent:
            return v  # the step then ends at once
        h = DIFFERENCE * np.sqrt(v.size) / length
        (above, g1), (below, g0) = self._evaluated(x + h * v), self._evaluated(x - h * v)
        if max(above, below) >= WORST:
            return v
        return (g1 - g0) / (2 * h)

    def run(self, radius: float) -> tuple[Gaussian, float, float]:
        """(the new Gaussian, the gain, the largest slope that is left)."""
        zero = np.zeros(2 * self.q.dim)
        began = self.at(zero)[0]
        best = [began, zero]

        def watch(intermediate_result) -> None:
            if intermediate_result.fun < best[0]:
                best[:] = [float(intermediate_result.fun), intermediate_result.x.copy()]
            if self.fixed.target.budget.spent:
                raise StopIteration

        few = self.q.dim <= FEW
        second = (
            {"hess": self.hessian, "method": "trust-exact"} if few else {"hessp": self.product, "method": "trust-ncg"}
        )
        minimize(
            lambda x: self.at(x)[0], zero, jac=lambda x: self.at(x)[1], **second, callback=watch,
            options={
                "maxiter": STEPS, "gtol": TOLERANCE, "initial_trust_radius": radius, "max_trust_radius": 100 * radius,
            },
        )  # fmt: skip
        value, x = best
        d, s = self.q.dim, self.q.root
        return Gaussian(self.q.mean + s * x[:d], s * np.exp(x[d:])), began - value, float(np.abs(self.at(x)[1]).max())


def linear_response(q: Gaussian, hessian: Float[np.ndarray, "2D 2D"]) -> tuple[Gaussian, bool]:
    """q with the linear-response covariance, and whether it has one: the optimum must be one in all directions."""
    d = q.dim
    try:
        np.linalg.cholesky(-hessian)
    except np.linalg.LinAlgError:
        return q, False
    covariance = np.linalg.inv(-hessian)[:d, :d]
    return Gaussian(q.mean, q.root[:, None] * safe_cholesky((covariance + covariance.T) / 2)), True
