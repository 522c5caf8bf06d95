"""Leave-one-out cross-validation by Pareto-smoothed importance sampling (PSIS-LOO)."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ModelError, explain
from .pointwise import Pointwise
from .psis import log_sum, smooth
from .verdict import ESS_NEARLY_ALL, KHAT_SLACK

ROWS = 256  # observations smoothed at once
FEW = 0.02  # share of observations with a bad k-hat up to which the sum is little harmed


@dataclasses.dataclass(frozen=True)
class LOO:
    """How well each observation is predicted by the others, in nats; larger is better.

    elpd:      sum_i log p(y_i | y_-i), expected log predictive density.   se: its standard error over observations.
    mcse:      its Monte Carlo error, from the finite number of draws.
    p_loo:     effective number of parameters: what seeing y_i itself adds.
    pointwise: (N,): log p(y_i | y_-i).   khat: (N,): Pareto k-hat of each observation's weights.
    n_bad:     observations with k-hat above `khat_limit`, min(1 - 1 / log10(S), 0.7) for S draws (0.4 more where the
               weights keep 95% of the draws' worth: what k-hat sees there carries next to no mass).
    reasons:   what to know about these numbers, in sentences; the worst first.
    """

    elpd: float
    se: float
    p_loo: float
    pointwise: Float[np.ndarray, " N"]
    khat: Float[np.ndarray, " N"]
    n_bad: int
    khat_limit: float
    mcse: float
    reasons: list[str]

    @property
    def n(self) -> int:
        """The number of observations."""
        return self.pointwise.size

    def __repr__(self) -> str:
        numbers = f"LOO: elpd {self.elpd:,.2f} (se {self.se:,.2f})   p_loo {self.p_loo:,.2f}   {self.n:,} observations"
        return "\n".join([numbers] + [f"  - {r}" for r in self.reasons])


def loo(fit: Any, *, reff: float = 1.0) -> LOO:
    """PSIS-LOO of a fit, corrected for q where the draws come from q.

    Definition: log p(y_i | y_-i) ~ log sum_s w_is p(y_i | z_s), weights that sum to one, smoothed, and proportional to
                p(z_s, y) / q(z_s) / p(y_i | z_s) for draws of q (`fit.corrected` "none"), 1 / p(y_i | z_s) for draws of
                the posterior.
    Arguments:  fit: of a NumPyro model, or of a log density with `log_likelihood=` fitted to rows.
                reff: effective draws a draw, for correlated draws ("chains").
    Raises:     ModelError where the model has no pointwise likelihood.
    Cost:       the pointwise log-likelihood of all draws, and 0.3 ms an observation at 4096 draws; under 1 GB.
    Reference:  Vehtari, Gelman and Gabry (2017); Magnusson, Andersen, Jonasson and Vehtari (2019), eq. 6, for draws
                of an approximation.
    """
    if not 0 < reff < math.inf:
        because = "it is the effective sample size over the number of draws"
        raise ModelError(explain(f"loo(reff={reff})", "it is not a positive number", because, "reff=1.0"))
    terms, base = Pointwise(fit), log_ratio(fit)
    with np.errstate(all="ignore"):
        whole, _ = smooth(base[None])
    whole = whole[0] - log_sum(whole)[0]
    parts = []
    for _, block in terms.blocks():
        parts += [_leave_out(block[a : a + ROWS], base, whole, reff) for a in range(0, len(block), ROWS)]
    elpd, khat, lpd, variance, ess = (np.concatenate(a) for a in zip(*parts, strict=True))
    limit = min(1 - 1 / math.log10(max(base.size, 11)), 0.7)
    slack = np.where(ess >= ESS_NEARLY_ALL, 2 * KHAT_SLACK, 0.0)  # as in the verdict: that tail has next to no mass
    n_bad = int((~(khat <= limit + slack)).sum())
    se = float(math.sqrt(elpd.size) * elpd.std()) if np.isfinite(elpd).all() else math.inf
    p_loo, mcse = float(lpd.sum() - elpd.sum()), float(math.sqrt(variance.sum()))
    reasons = _reasons(fit, elpd, n_bad, p_loo, mcse)
    return LOO(float(elpd.sum()), se, p_loo, elpd, khat, n_bad, limit, mcse, reasons)


def log_ratio(fit: Any) -> Float[np.ndarray, " S"]:
    """log posterior / law of the draws, up to a constant: log p - log q for draws of q, else 0."""
    if getattr(fit, "corrected", "none") != "none":
        return np.zeros(len(fit.log_p))
    ratio = np.asarray(fit.log_p, np.float64) - np.asarray(fit.log_q, np.float64)
    return np.where(np.isfinite(ratio), ratio, -np.inf)


def _leave_out(
    term: Float[np.ndarray, "n S"], base: np.ndarray, whole: np.ndarray, reff: float
) -> tuple[np.ndarray, ...]:
    """Of each observation: log p(y_i | y_-i), k-hat, log p(y_i | y), the first one's Monte Carlo variance, ESS share."""
    with np.errstate(all="ignore"):
        log_w, khat = smooth(base - term, reff)
        log_w -= log_sum(log_w)[:, None]
        elpd = log_sum(log_w + term)
        w = np.exp(log_w)
        ess = 1 / np.einsum("rs,rs->r", w, w) / w.shape[1]
        w *= np.expm1(term - elpd[:, None])  # w (p(y_i | z) / its mean - 1)
        variance = np.nansum(np.square(w, out=w), 1) / reff
    return elpd, khat, log_sum(whole + term), variance, ess


def _reasons(fit: Any, elpd: np.ndarray, n_bad: int, p_loo: float, mcse: float) -> list[str]:
    bad, good = [], []
    n = elpd.size
    if not np.isfinite(elpd).all():
        bad.append(f"{int((~np.isfinite(elpd)).sum()):,} observations have no finite predictive density.")
    share = "so few of them harm the sum little" if n_bad <= FEW * n else "the elpd is then too high or too noisy"
    if n_bad:
        bad.append(f"For {n_bad:,} of {n:,} observations k-hat is too high: {share}. Such an observation moves "
                   "the posterior much when left out, or q misses part of it.")  # fmt: skip
    else:
        good.append(f"The importance weights of all {n:,} observations can be trusted (k-hat).")
    if p_loo > n / 5:
        bad.append(f"p_loo, {p_loo:.1f}, is large against {n:,} observations: the model is flexible, or misspecified.")
    if not mcse < max(0.1, 0.1 * math.sqrt(n) * float(np.std(elpd))):
        bad.append(f"The Monte Carlo error of the elpd is {mcse:.2g}: more draws make it smaller.")
    if str(fit.verdict) == "UNRELIABLE":
        bad.append("The fit is UNRELIABLE, so its draws, reweighted or not, may not stand for the posterior.")
    return bad + good
