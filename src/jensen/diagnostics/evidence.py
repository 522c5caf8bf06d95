"""The evidence log p(x), with an interval: importance sampling, or bridge sampling where the draws come from chains."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ModelError, explain
from ..tree import length
from .psis import fit_generalised_pareto, log_sum, smooth, tail_size
from .verdict import KHAT_USABLE

REPLICATES = 2000
BLOCK = 2**21  # bootstrap weights held at once
K = 64  # draws of the multi-sample bound


@dataclasses.dataclass(frozen=True)
class Evidence:
    """log p(x) = log integral p(x, z) dz, nats, whole data.

    log_evidence: the estimate.   se: its standard error.   lower, upper: ends of the central interval of mass `prob`.
    elbo:   E[log w], w = p / q: the bound of one draw.   iwae: E[log (w_1 + ... + w_64) / 64]: of 64; elbo <= iwae <= log p(x).
    khat:   Pareto k-hat of w.   method: "importance" | "bridge" | "rows".
    reasons: what to know about these numbers, in sentences; the worst first.
    """

    log_evidence: float
    lower: float
    upper: float
    prob: float
    se: float
    elbo: float
    iwae: float
    khat: float
    method: str
    reasons: list[str]

    def __repr__(self) -> str:
        interval = f"{self.prob:.0%} interval {self.lower:,.3f} to {self.upper:,.3f}, by {self.method}"
        numbers = f"Evidence: log p(x) {self.log_evidence:,.3f} ({interval})   elbo {self.elbo:,.3f}"
        return "\n".join([numbers] + [f"  - {r}" for r in self.reasons])


def evidence(
    fit: Any,
    prob: float = 0.9,
    *,
    seed: int = 0,
    proposal: tuple[np.ndarray, np.ndarray] | None = None,
    ess: float | None = None,
) -> Evidence:
    """The evidence of a fit's model, from its draws.

    Definition: draws of q: log mean w, the largest w smoothed, and an interval by the Bayesian bootstrap of the draws
                with the tail of the weights drawn anew from its Pareto fit. Draws of chains: the optimal bridge
                between q and the posterior.
                A latent for each row: the sum over rows, scaled to all data.
    Arguments:  prob: mass of the interval.   seed: of the bootstrap.
                proposal: (log p, log q) of fresh draws of q, where `fit.draws` are not draws of q; default
                `fit.proposal_draws()`.   ess: effective number of the chains' draws; default: all of them.
    Raises:     ModelError if prob is no share, or there are no draws of q.
    Cost:       no density evaluations but those of `fit.proposal_draws()`.
    """
    if not 0 < prob < 1:
        because = "it is the interval's mass"
        raise ModelError(explain(f"evidence(prob={prob})", "it is not between 0 and 1", because, "prob=0.9"))
    own = np.asarray(fit.log_p, np.float64), np.asarray(fit.log_q, np.float64)
    corrected = getattr(fit, "corrected", "none")
    if fit.plated:
        return _of_rows(fit, own[0] - own[1], prob)
    log_p, log_q = own if corrected == "none" and proposal is None else _proposal(fit, proposal)
    made = importance(log_p, log_q, prob, seed)
    if corrected != "chains":
        return made
    value, se = bridge(log_p, log_q, *own, ess=ess)
    reach = _normal_quantile(prob) * se
    reasons = (
        [] if se < 0.5 else [f"The bridge between q and the chains is narrow: its standard error is {se:.2g} nats."]
    )
    if ess is None:
        reasons.append(
            "The draws of the chains were counted as independent: the interval is too narrow if they are not."
        )
    return dataclasses.replace(
        made, log_evidence=value, se=se, lower=value - reach, upper=value + reach, method="bridge", reasons=reasons
    )


def importance(
    log_p: Float[np.ndarray, " S"], log_q: Float[np.ndarray, " S"], prob: float = 0.9, seed: int = 0
) -> Evidence:
    """The evidence from draws of q: the mean of the smoothed importance weights, and its Bayesian bootstrap.

    Bias:       of the mean of w: none; of its logarithm about -se^2 / 2; smoothing adds some where k-hat is high.
    Reference:  Rubin (1981), Bayesian bootstrap; Vehtari et al. (2024), smoothing.  [vehtari2024psis]
    """
    raw = _log_ratio(log_p, log_q)
    s = raw.size
    smoothed, khat = smooth(raw[None])
    smoothed, khat = smoothed[0], float(khat[0])
    value = float(log_sum(smoothed)) - math.log(s)
    if not math.isfinite(value):
        reasons = ["No draw from q has a finite importance weight: the evidence is unknown."]
        nothing = -math.inf
        return Evidence(nothing, nothing, math.inf, prob, math.inf, nothing, nothing, khat, "importance", reasons)
    log_means = _bootstrap(raw, khat, np.random.default_rng(seed))
    lower, upper = np.quantile(log_means, [(1 - prob) / 2, (1 + prob) / 2])
    groups = raw[: s // K * K].reshape(-1, K) if s >= K else raw[None]
    iwae = float(np.mean(log_sum(groups) - math.log(groups.shape[1])))
    elbo = float(raw[np.isfinite(raw)].mean())
    reasons = _reasons(khat, float((~np.isfinite(raw)).mean()))
    se = float(log_means.std())
    return Evidence(value, float(lower), float(upper), prob, se, elbo, iwae, khat, "importance", reasons)


def _bootstrap(log_w: Float[np.ndarray, " S"], khat: float, rng: np.random.Generator) -> Float[np.ndarray, " B"]:
    """Replicates of log mean w: Dirichlet(1, ..., 1) weights over the draws, and a tail drawn anew from its fit.

    The draws' own tail alone would give too short an interval: the weights that make the difference are those not drawn.
    """
    s, top = log_w.size, log_w.max()
    w = np.sort(np.exp(log_w - top))
    n = tail_size(s) if math.isfinite(khat) else 0
    body, k, sigma = w[: s - n], 0.0, 0.0
    if n:
        exceedance = w[-n:] - body[-1]
        (k,), (sigma,) = fit_generalised_pareto(exceedance[None], np.array([np.count_nonzero(exceedance)]))
    step, means = max(1, BLOCK // s), []
    for a in range(0, REPLICATES, step):
        b = min(step, REPLICATES - a)
        mass = rng.standard_exponential((b, s - n))
        total, of_tail = mass @ body, rng.standard_gamma(n, b) if n else np.zeros(b)
        if n:
            # of u in (0, 1]: the quantile function of the generalised Pareto distribution, at 1 - u
            log_u = -rng.standard_exponential((b, n))
            excess = sigma * (np.expm1(-k * log_u) / k if abs(k) > 1e-12 else -log_u)
            total = total + of_tail * (body[-1] + excess.mean(1))
        means.append(total / (mass.sum(1) + of_tail))
    return top + np.log(np.concatenate(means))


def bridge(
    log_p_q: Float[np.ndarray, " S"],
    log_q_q: Float[np.ndarray, " S"],
    log_p_post: Float[np.ndarray, " T"],
    log_q_post: Float[np.ndarray, " T"],
    ess: float | None = None,
    max_iterations: int = 1000,
) -> tuple[float, float]:
    """(log evidence, standard error) by the optimal bridge between q and the posterior.

    Definition: r = E_q[p / (s1 p + s2 r q)] / E_post[q / (s1 p + s2 r q)], iterated to its fixed point, which is p(x);
                p unnormalised, s1 : s2 = effective draws of the posterior : draws of q.
    Arguments:  log_p_q, log_q_q: log p and log q of draws of q.   log_p_post, log_q_post: of draws of the posterior.
                ess: effective number of the latter (correlated draws); default: their number.
    Returns:    nats. The standard error is that of Fruehwirth-Schnatter (2004), eq. 12, with `ess` for the correlation.
                Not finite where q and the posterior share no mass.
    Reference:  Meng and Wong (1996); Gronau et al. (2017).  [meng1996bridge, gronau2017bridge]
    """
    l_q, l_post = _log_ratio(log_p_q, log_q_q), _log_ratio(log_p_post, log_q_post)
    l_post = l_post[np.isfinite(l_post)]
    n_q, n_post = l_q.size, float(l_post.size if ess is None else min(ess, l_post.size))
    if not np.isfinite(l_q).any() or not l_post.size or n_post <= 0:
        return -math.inf, math.inf
    log_s1, log_s2 = math.log(n_post / (n_post + n_q)), math.log(n_q / (n_post + n_q))
    log_f_q = lambda log_r: l_q - np.logaddexp(log_s1 + l_q, log_s2 + log_r)
    log_f_post = lambda log_r: -np.logaddexp(log_s1 + l_post, log_s2 + log_r)
    log_mean = lambda a: float(log_sum(a)) - math.log(a.size)
    log_r = float(np.median(l_post))
    for _ in range(max_iterations):
        new = log_mean(log_f_q(log_r)) - log_mean(log_f_post(log_r))
        done = abs(new - log_r) < 1e-10 * max(1.0, abs(new))
        log_r = new
        if done or not math.isfinite(log_r):
            break
    relative = lambda a: float(np.var(np.exp(a - a.max())) / np.mean(np.exp(a - a.max())) ** 2)
    se = math.sqrt(relative(log_f_q(log_r)) / n_q + relative(log_f_post(log_r)) / n_post)
    return log_r, se if done else math.inf


def _log_ratio(log_p: Any, log_q: Any) -> Float[np.ndarray, " S"]:
    ratio = np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)
    return np.where(np.isfinite(ratio), ratio, -np.inf)


def _proposal(fit: Any, given: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    if given is not None:
        return given
    make = getattr(fit, "proposal_draws", None)
    if make is None:
        wrong = "its draws do not come from q, and there is no way to make some that do"
        because, instead = "the evidence is a mean over q", "evidence(fit, proposal=(log_p, log_q)) of draws of q"
        raise ModelError(explain("the evidence of this fit", wrong, because, instead))
    return make()


def _of_rows(fit: Any, log_w: Float[np.ndarray, "S R"], prob: float) -> Evidence:
    """A latent for each row: the sum over the rows that the verdict saw, scaled to all rows."""
    log_w = np.where(np.isfinite(log_w), log_w, -np.inf)
    s, rows = log_w.shape
    smoothed, khat = smooth(log_w.T)
    each = log_sum(smoothed) - math.log(s)
    variance = np.exp(smoothed - each[:, None]).var(1) / s
    n = rows if fit.rows is None else length(fit.rows)
    value, scale = n * float(each.mean()), n / rows
    between = n * n * (1 - rows / n) * float(each.var()) / rows
    se = math.sqrt(between + scale**2 * float(variance.sum()))
    reach = _normal_quantile(prob) * se
    seen = [] if rows >= n else [f"{rows:,} of {n:,} rows were looked at: most of the interval is due to that."]
    heavy = float((khat > KHAT_USABLE).mean())
    reasons = seen if heavy <= 0.05 else [f"For {heavy:.0%} of the rows k-hat is above {KHAT_USABLE}.", *seen]
    groups = log_w[: s // K * K].reshape(-1, K, rows) if s >= K else log_w[None]
    iwae = n * float(np.mean(log_sum(np.moveaxis(groups, 1, 2)) - math.log(groups.shape[1])))
    worst = float(np.quantile(khat, 0.95, method="higher"))
    elbo = n * float(log_w.mean())
    return Evidence(value, value - reach, value + reach, prob, se, elbo, iwae, worst, "rows", reasons)


def _normal_quantile(prob: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + prob) / 2))


def _reasons(khat: float, lost: float) -> list[str]:
    reasons = []
    if khat > KHAT_USABLE:
        reasons.append(
            f"k-hat {khat:.2f} is above {KHAT_USABLE}: q misses part of the posterior, and the evidence is likely higher."
        )
    if lost:
        reasons.append(f"{lost:.1%} of draws from q have no finite log density; they count as weight 0.")
    return reasons or [f"The importance weights have a light tail (k-hat {khat:.2f}): the interval can be trusted."]
