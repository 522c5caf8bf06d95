"""Parallel chains started from a fitted q: the short exact correction."""

import dataclasses
import math
from typing import Any, ClassVar

import jax.random as jr
import numpy as np
from jaxtyping import Float
from scipy.stats import t as student_t

from ..algorithms.budget import OutOfBudget
from ..algorithms.gaussian import Gaussian, Mixture, one_gaussian, safe_cholesky
from ..algorithms.heavy_tails import HeavyTails
from ..algorithms.importance import n_proposals, n_weighed, proposal_of, weigh
from ..algorithms.laplace import WIDE
from ..algorithms.low_rank import DENSE, LowRankGaussian
from ..algorithms.mixture import ModeMixture, gaussians
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import ACCURACY, OF_SD, Target
from ..compiled import key_for
from ..diagnostics import marginals
from ..diagnostics.stein import by_chance, identity_scores
from .kernel import SEGMENT, Sampler, Segment
from .nested import Nested
from .transport import Affine
from .warp import Warped, to_device

N_CHAINS, FEWEST_CHAINS = 64, 16
TRAJECTORY = 2.2  # longest integration time, in whitened coordinates (half a period is pi)
ACCEPT = 0.8
WARMUP, LEAST_WARMUP = 8, 4  # segments
LEAST_ITERATIONS = 4  # from which there are halves to compare
MANY = 2000  # dimensions above which there are fewer chains
KEPT = 2 * 10**7  # numbers: above, chains are thinned
MAX_LEAPFROG = 64
MOST_OF_SD = 0.0205  # relative, where no accuracy is asked for: a larger error would not be called reliable
RHAT = 1.01  # at which sampling may stop (Vehtari et al. 2021)
HOPELESS = 1.3  # R-hat from which more iterations of the same do not help
DRAWN_ON = 4  # times the iterations by ranks enough, where they settle a mean or an sd
LOOKED_AT, SMALL = 16_384, 1e-4  # draws; a difference, in sd
CHANCE = 0.01  # with which one of the long tails of exact draws is called unvisited
NARROW = 0.15  # share of the chains that take small steps in a segment: they enter, and leave, narrow places


@dataclasses.dataclass
class State:
    """Chains on their way: transport, positions in its coordinates, step size, and all that was kept."""

    transport: Any
    base: Any  # host twin of the transport: `whiten`
    z: Float[np.ndarray, "C D"]
    step: float
    key: Any
    kept: list[Segment] = dataclasses.field(default_factory=list)
    iteration: int = 0


def initial_points(target: Target, q: Any, n: int, seed: int) -> Float[np.ndarray, "n D"]:
    """n points from q with heavy tails, resampled without repetition by their smoothed, tempered weights."""
    weighed = weigh(target, proposal_of(q), min(16 * n, n_weighed(target)), seed + 1)
    alive = np.isfinite(weighed.log_p)
    if alive.sum() < 2:
        return weighed.u[:0]
    weights = np.where(alive, np.exp(0.5 * weighed.log_weights), 0.0)  # tempered: spread out rather than collapsed
    rng = np.random.default_rng([seed, 7])
    return weighed.u[rng.choice(len(weighed.u), n, replace=bool((weights > 0).sum() < n), p=weights / weights.sum())]


def leapfrogs(rng: np.random.Generator, step: float, n: int, longest: float, cap: int) -> np.ndarray:
    """Jittered numbers of leapfrog steps."""
    return np.clip(np.ceil(rng.uniform(0.3, 1.0, n) * longest / step), 1, cap).astype(int)


@dataclasses.dataclass
class HMC(AbstractSolver):
    """Hamiltonian Monte Carlo: 64 chains at once from q's draws, with q's covariance as the metric.

    Definition: chains move in z, u = T(z), T whitening the posterior as q sees it, and re-learned from the pooled
                chains in the warm-up; jittered trajectories of fixed length. Runs until the standard errors (between
                chains) and R-hat suffice, or the iterations or the budget are spent.
    Arguments:  n_chains: None: 64, fewer where the density is dear.   least, most: segments of 16 iterations.
                accept: acceptance to which the step size is adapted.   trajectory: its length, in sd.   cap: leapfrog steps.
    Cost:       about 10 gradients an iteration and a chain.
    Reference:  Neal (2011); Hoffman and Sountsov (2022); BlackJAX.  [neal2011hmc]
    """

    n_chains: int | None = None
    least: int = 6
    most: int = 60
    accept: float = ACCEPT
    trajectory: float = TRAJECTORY
    cap: int = MAX_LEAPFROG
    name: ClassVar = "hmc"
    starts_from: ClassVar = ModeMixture
    about: ClassVar = (
        "Hamiltonian Monte Carlo: 64 chains side by side, started from the fitted Gaussian, run until they agree."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or gaussians(target, seed)
        if start.q is None:
            return start
        usual = target.fewer(N_CHAINS, FEWEST_CHAINS) if target.dim <= MANY else N_CHAINS // 4
        n_chains = self.n_chains or usual
        base, u = self._start(target, start, n_chains, seed)
        if len(u) < 2:
            return dataclasses.replace(start, why="diverged")
        first = 0.5 * min(1.0, WIDE / target.dim) ** 0.25
        state = State(_transport(base), base, base.whiten(u), first, key_for(seed, "chains"))
        sampler, rng = Sampler(target, self.name), np.random.default_rng([seed, 8])
        self.warm(sampler, state, rng)
        why, checks = self.collect(sampler, state, rng)
        if not checks:
            raise OutOfBudget
        return self.result(target, start, state, why, checks)

    def _start(self, target: Target, start: Solution, n_chains: int, seed: int) -> tuple[Any, np.ndarray]:
        """Coordinates and positions: where earlier chains ended, else draws of q."""
        if start.corrected == "chains" and start.draws is not None and not isinstance(start.q, Warped):
            x = start.draws.reshape(*start.findings["shape"], target.dim)
            u = x[-1][np.arange(n_chains) % x.shape[1]]
            pooled = x[len(x) // 2 :].reshape(-1, target.dim)
            return pooled_gaussian(pooled, gaussian_of(start.q)), u
        base = start.q if isinstance(start.q, Warped) else gaussian_of(start.q)
        return base, initial_points(target, start.q, n_chains, seed)

    def segment(self, sampler: Sampler, state: State, rng: np.random.Generator) -> Segment:
        n = leapfrogs(rng, state.step, SEGMENT, self.trajectory, self.cap) if self.name == "hmc" else np.ones(SEGMENT)
        state.key, key = jr.split(state.key)
        scale = np.where(rng.random(len(state.z)) < NARROW, 10.0 ** rng.uniform(-1.5, 0, len(state.z)), 1.0)
        out = sampler.run(state.transport, state.z, key, state.step * scale, n, whole=False)
        state.z = out.z[-1]
        state.iteration += len(out.z)
        return out

    def warm(self, sampler: Sampler, state: State, rng: np.random.Generator) -> None:
        recent: list[Segment] = []
        last = sampler.target.fewer(WARMUP, LEAST_WARMUP) if sampler.target.dim <= WIDE else WARMUP
        learning = range(3, last - 1, 2) if last == WARMUP else [last - 2]
        for i in range(last):
            out = self.segment(sampler, state, rng)
            recent = [*recent[-2:], out]
            accepted = float(np.nan_to_num(out.accepted).mean())
            state.step *= math.exp((1.5 if i < 4 else 0.7) * (accepted - self.accept))
            state.step = float(np.clip(state.step, 1e-4, 1.5))
            if i in learning and isinstance(state.base, Gaussian):
                self.relearn(state, np.concatenate([s.u for s in recent]).reshape(-1, sampler.target.dim))
            if sampler.target.budget.spent:
                return

    def relearn(self, state: State, u: Float[np.ndarray, "n D"]) -> None:
        current = state.base.apply(state.z)
        state.base = pooled_gaussian(u, state.base)
        state.transport = Affine.of(state.base)
        state.z = state.base.whiten(current)

    def collect(self, sampler: Sampler, state: State, rng: np.random.Generator) -> tuple[str, dict]:
        checks: dict[str, Any] = {}
        kept = KEPT if sampler.target.dim <= MANY else KEPT // 2
        most = math.ceil(self.most * max(1.0, ACCURACY / sampler.target.accuracy) ** 2)  # where more is asked for
        stride = math.ceil(most * SEGMENT * len(state.z) * sampler.target.dim / kept)
        last, looked = most, self.least
        slack = 1.0 if stride == 1 else 2.0  # few draws can be kept: no more can be asked
        for i in range(most):
            try:
                state.kept.append(thinned(self.segment(sampler, state, rng), stride))
            except OutOfBudget:
                break
            if i + 1 >= looked:
                looked = min(math.ceil(1.3 * (i + 1)), last)
                checks = convergence(state.kept, sampler.target.names)
                x = np.concatenate([s.u for s in state.kept])
                suffices = enough(checks, sampler.target, slack)
                if suffices and (i + 1 >= last or settled(sampler.target, x)):
                    return "converged", checks
                if suffices and last == most:
                    last = min(most, DRAWN_ON * (i + 1))
                    looked = min(looked, last)
                longer = missing(checks, sampler.target, slack) * (i + 1)
                if i + 1 >= 2 * self.least and (checks["rhat"] > HOPELESS or longer > most):
                    break
            if sampler.target.budget.spent and len(state.kept) >= 2:
                break
        if sum(len(s.u) for s in state.kept) < LEAST_ITERATIONS:
            return "budget", {}
        checks = convergence(state.kept, sampler.target.names)
        spent, why = sampler.target.budget.spent, "converged" if enough(checks, sampler.target, slack) else "stalled"
        return ("budget" if spent else why), checks

    def result(self, target: Target, start: Solution, state: State, why: str, checks: dict) -> Solution:
        x = np.concatenate([s.u for s in state.kept])  # (T, C, D)
        log_p = np.concatenate([s.log_p for s in state.kept]).reshape(-1)
        checks = checks | stein_scores(target, x)
        u = x.reshape(-1, target.dim)
        findings = {**start.findings, "chains": checks, "shape": x.shape[:2]}
        return Solution(start.q, why, u, log_p, corrected="chains", evidence=start.evidence, findings=findings)


def settled(target: Target, x: Float[np.ndarray, "T C D"]) -> bool:
    """Are the reported means and sds settled, or out of reach of a few times the draws?"""
    m = marginals.of_chains(reported_chains(target, x), target.reported.names)
    factor = np.max(np.square(m.errors()) / marginals.SETTLED**2, axis=0)
    return not ((m.undetermined > 0) & (factor < DRAWN_ON)).any()


def reported_chains(target: Target, x: Float[np.ndarray, "T C D"]) -> Float[np.ndarray, "T C Q"]:
    """The chains in the coordinates that are reported."""
    return target.reported(x.reshape(-1, x.shape[2])).reshape(*x.shape[:2], -1)


def _transport(base: Any) -> Any:
    return to_device(base) if isinstance(base, Warped) else Affine.of(base)


def thinned(segment: Segment, stride: int) -> Segment:
    """Without positions in z, and with every stride-th iteration (at least one)."""
    keep = slice(None, None, -min(stride, SEGMENT))
    kept = segment.u[keep][::-1]
    return segment._replace(  # copies: a view would keep the whole segment alive
        z=np.empty((0, *segment.z.shape[1:])),
        u=kept.astype(np.float32) if stride > 1 else kept.copy(),
        log_p=segment.log_p[keep][::-1].copy(),
    )


def gaussian_of(q: Gaussian | Mixture | LowRankGaussian | HeavyTails | Nested) -> Gaussian:
    """One Gaussian with the moments of a mixture of Gaussians; of a low-rank one, in many dimensions, its variances; of one
    with heavy tails its core."""
    if isinstance(q, HeavyTails | Nested):
        return q.gaussian
    if isinstance(q, LowRankGaussian):
        return Gaussian(q.mean, q.sd)
    return one_gaussian(q)


def gaussian_like(u: Float[np.ndarray, "n D"]) -> Gaussian:
    """A Gaussian with the moments of these draws."""
    if u.shape[1] <= DENSE and len(u) > 4 * u.shape[1]:
        return Gaussian(u.mean(0), safe_cholesky(np.atleast_2d(np.cov(u.T)) + 1e-12 * np.diag(u.var(0))))
    return Gaussian(u.mean(0), np.maximum(u.std(0), 1e-300))


def pooled_gaussian(u: Float[np.ndarray, "n D"], old: Gaussian) -> Gaussian:
    """Moments of the pooled chains, shrunk towards the old covariance."""
    n, d = u.shape
    mean = u.mean(0)
    if old.diagonal:
        return Gaussian(mean, np.sqrt(u.var(0) + 1e-12 * old.root**2))
    z = old.whiten(u)
    z = z - z.mean(0)
    weight = n / (n + 5.0 * d)
    covariance = weight * (z.T @ z) / n + (1 - weight) * np.diag((z**2).mean(0))
    return Gaussian(mean, _product(old.root, safe_cholesky(covariance)))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b  # of lower triangular matrices: lower triangular


def convergence(kept: list[Segment], names: list[str]) -> dict[str, Any]:
    """`agreement`, and how the proposals fared."""
    moved = np.concatenate([s.moved for s in kept])
    return agreement(np.concatenate([s.u for s in kept]), names) | {
        "stuck": int(longest_run(~moved)), "accepted": float(np.concatenate([s.accepted for s in kept]).mean()),
        "diverged": float(np.concatenate([s.diverged for s in kept]).mean()), "iterations": len(moved),
    }  # fmt: skip


def agreement(x: Float[np.ndarray, "T C D"], names: list[str]) -> dict[str, Any]:
    """R-hat and standard errors between chains (mean in sd, sd relative), of the worst coordinate, and its name. By ranks:
    what they say of quantiles holds whatever the tails."""
    a = marginals.agreement(x)
    r = np.nan_to_num(a.rhat, nan=np.inf)  # a coordinate that never moves has not been explored
    se_mean, se_sd = a.ess**-0.5, (2 * a.ess_sd) ** -0.5
    worst = lambda a: names[int(np.argmax(a))]
    return {
        "rhat": float(r.max()), "rhat_worst": worst(r),
        "se_mean": float(se_mean.max()), "se_mean_worst": worst(se_mean),
        "se_sd": float(se_sd.max()), "se_sd_worst": worst(se_sd), "halves": float(a.halves.max()),
    }  # fmt: skip


def wanted(target: Target) -> tuple[float, float]:
    """Standard errors (of a mean in sd, of an sd relative) at which sampling stops."""
    of_sd = OF_SD * target.accuracy
    return target.accuracy, of_sd if target.asked else min(of_sd, MOST_OF_SD)


def enough(checks: dict, target: Target, slack: float = 1.0) -> bool:
    """May sampling stop?"""
    mean, sd = wanted(target)
    return checks["se_mean"] < slack * mean and checks["se_sd"] < slack * sd and checks["rhat"] < RHAT


def missing(checks: dict, target: Target, slack: float) -> float:
    """How many times more iterations the standard errors ask for (they fall with the square root)."""
    mean, sd = wanted(target)
    return max((checks["se_mean"] / mean) ** 2, (checks["se_sd"] / sd) ** 2) / 2 / slack**2


def stein_scores(target: Target, x: Float[np.ndarray, "T C D"], most: int = 4096) -> dict[str, Any]:
    """Largest |z| of the identities E[g] = 0 and E[(u - m) g] = -1, g = grad log p, over coordinates.

    A region the chains never enter, but whose edge they reach, breaks the first: its integral is the density at the edge.
    """
    t, c, d = x.shape
    x = x[:: max(1, t * c // target.affordable(target.fewer(min(most, n_proposals(d)), 16 * c), 0.3, least=c))]
    try:
        g = target(x.reshape(-1, d))[1].reshape(x.shape)
    except OutOfBudget:
        return {
            "stein": math.inf,
            "stein_worst": "not evaluated: the budget was used up",
            "stein_by_chance": by_chance(d, c),
        }
    first, second = identity_scores(x, g)
    worst = target.names[int(np.argmax(np.maximum(first, second)))]
    return {"stein": float(max(first.max(), second.max())), "stein_worst": worst, "stein_by_chance": by_chance(d, c)}


def unvisited_tails(target: Target, x: Float[np.ndarray, "T C D"], m: marginals.Marginals) -> np.ndarray:
    """SD for each reported quantity with a long tail that the chains have not filled as the density asks, else 0.

    Definition: E[h' + h g_k] = 0 for h = ((x - E x) / sd)^2 - 1 and for its root, x a function of the latent's coordinate
                k that moves it most, g = grad log p. If the chains' law is p r, it is -E[h r'] instead: about what is
                missing of the second moment, and of the mean, though every draw may be where it should be.
    Cost:       at most 16,384 gradients, where there is such a quantity.
    """
    long = np.flatnonzero((m.kurtosis > marginals.LONG_TAIL) & (m.undetermined == 0))
    marks = np.zeros(len(m.names), int)
    if not long.size or not target.smooth:
        return marks
    t, c, d = x.shape
    u = x[:: max(1, t * c // target.fewer(LOOKED_AT, 32 * c))]
    flat = np.asarray(u.reshape(-1, d), np.float64)
    g, shown = target(flat)[1], target.reported(flat)
    limit = float(student_t.isf(CHANCE / (4 * long.size), c - 1))
    moves = np.abs(np.corrcoef(_ranks(shown[:, long]), _ranks(flat), rowvar=False)[: long.size, long.size :])
    for j, k in zip(long, np.argmax(np.nan_to_num(moves), axis=1), strict=True):
        step = SMALL * np.eye(d)[k] * max(float(flat[:, k].std()), 1e-300)
        slope = (target.reported(flat + step)[:, j] - target.reported(flat - step)[:, j]) / (2 * step[k])
        z, dz = (shown[:, j] - m.mean[j]) / m.sd[j], slope / m.sd[j]
        terms = np.stack([dz + z * g[:, k], 2 * z * dz + (z**2 - 1) * g[:, k]], -1).reshape(*u.shape[:2], 2)
        score = terms.mean((0, 1)) / (terms.mean(0).std(0, ddof=1) / math.sqrt(c) + 1e-300)
        marks[j] = marginals.SD if (np.abs(score) > limit).any() else 0
    return marks


def _ranks(x: Float[np.ndarray, "n D"]) -> np.ndarray:
    return np.argsort(np.argsort(x[:: max(1, len(x) // 1024)], axis=0), axis=0)


def longest_run(flags: np.ndarray) -> int:
    """Longest run of True along the first axis."""
    run, best = np.zeros(flags.shape[1], int), 0
    for row in flags:
        run = np.where(row, run + 1, 0)
        best = max(best, int(run.max()))
    return best


@dataclasses.dataclass
class MALA(HMC):
    """The Metropolis-adjusted Langevin algorithm: `HMC` of a single leapfrog step.  Reference:  Roberts and Tweedie (1996)."""

    name: ClassVar = "mala"
    about: ClassVar = "Langevin chains side by side: short steps along the slope, run until they agree."
