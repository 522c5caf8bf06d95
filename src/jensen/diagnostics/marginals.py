"""Mean and sd of each reported quantity, with Monte Carlo errors that know what the draws have not seen."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .chains import normal_scores, rhat_of_scores, split_rhat
from .psis import fit_generalised_pareto, tail_size

SETTLED = 0.025  # error of a mean (in sd) or of an sd (relative) at which the number may be printed
BY_CHANCE = 2.0  # times what as many draws of a normal would err: above, the tail is at fault, not their number
CENTRAL = 0.158655253931457, 0.841344746068543  # of a normal's probability within one sd
LONG_TAIL = 5.0  # kurtosis
RANKED, HEAVIEST = 50, 14  # quantities whose ranks are taken
AT_ONCE = 2**22  # numbers
FEW_IN_TAIL = 5
NORMAL_QUARTILE = 0.6744897501960817
OUTERMOST, FAR = 10, 50.0  # draws; medians
SMALLEST, LARGEST = -600.0, 1e150  # a log-weight, and a value, at the ends of what numbers hold
NO_TAIL = 2.0  # times the largest term: what a light tail hides, and a little more
NO_MATTER = 0.1  # share of a settled error that what is hidden may be without a look at the tail
SD, MEAN_AND_SD = 1, 2
MARKS = np.array(["", "sd", "mean, sd"])


@dataclasses.dataclass
class Marginals:
    """Of Q quantities, in the coordinates they are reported in.

    mean, sd:     estimates from all there is (weighted draws, whole chains).
    ess:          effective number of draws, by ranks: what quantiles rest on. It does not know of tails.
    r_hat:        rank-normalised split R-hat, bulk or folded; NaN where no chains made the draws, or nothing varies.
    mcse_mean, mcse_sd: Monte Carlo standard errors, in the quantity's units; the tail beyond the draws is in them.
    tail:         of those: Pareto shape of the tail of |x - median|: the moment m exists if it is below 1 / m. Else NaN.
    kurtosis:     fourth moment of the standardised draws.
    undetermined: 0; 1 where the draws do not settle the sd; 2 where they do not settle the mean either.
    """

    names: list[str]
    mean: Float[np.ndarray, " Q"]
    sd: Float[np.ndarray, " Q"]
    ess: Float[np.ndarray, " Q"]
    r_hat: Float[np.ndarray, " Q"]
    mcse_mean: Float[np.ndarray, " Q"]
    mcse_sd: Float[np.ndarray, " Q"]
    tail: Float[np.ndarray, " Q"]
    undetermined: Int[np.ndarray, " Q"]
    kurtosis: Float[np.ndarray, " Q"]
    n: int

    @property
    def marks(self) -> np.ndarray:
        """ "", "sd" or "mean, sd" for each quantity."""
        return MARKS[self.undetermined]

    @classmethod
    def numbers(cls) -> list[str]:
        """All fields but the names."""
        return [f.name for f in dataclasses.fields(cls) if f.name != "names"]

    def arrays(self) -> dict[str, np.ndarray]:
        """For a file, which knows the names."""
        return {name: np.asarray(getattr(self, name)) for name in self.numbers()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "Marginals":
        """Inverse of `arrays`, without names."""
        return cls(names=[], **{name: int(a) if name == "n" else np.asarray(a) for name, a in arrays.items()})

    def marked(self, marks: Int[np.ndarray, " Q"]) -> "Marginals":
        """With what these leave undetermined, too."""
        return dataclasses.replace(self, undetermined=np.maximum(self.undetermined, marks))

    def completed(self, other: "Marginals") -> "Marginals":
        """With the moments that are open here and settled in `other`."""
        better = other.undetermined < self.undetermined
        pick = lambda name: np.where(better, getattr(other, name), getattr(self, name))
        return dataclasses.replace(
            self, **{name: pick(name) for name in ("mean", "sd", "mcse_mean", "mcse_sd", "undetermined")}
        )

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean in sd and of the sd, relative; 0 where nothing varies."""
        sd = np.where(self.sd > 0, self.sd, np.inf)
        return self.mcse_mean / sd, self.mcse_sd / sd


def tail_error(
    f: Float[np.ndarray, "S Q"], ess: Float[np.ndarray, " Q"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """(error of the mean of f, shape k of its tail), where f are terms of mean near 0, worth `ess` independent ones.

    Definition: hypot(sqrt(E[f^2] / ess), E[|f|; |f| > q]), q the level that one in `ess` exceeds. Both expectations
                take the largest |f| from the generalised Pareto distribution fitted to them, and the first is at least
                the empirical one: where the tail is too heavy for as many terms, the second is what they have not seen.
                Infinite for k >= 1. Where no term matters there is no need of a fit, and k is NaN.
    Reference:  Vehtari, Simpson, Gelman, Yao and Gabry (2024), for the tail of terms rather than of weights.
    """
    s, n = f.shape
    second, k = (f**2).mean(0), np.full(n, np.nan)
    unseen = NO_TAIL * np.maximum(f.max(0), -f.min(0)) / ess
    m = tail_size(s, float(np.clip(np.median(ess) / s, 1e-6, 1.0)))
    heavy = np.flatnonzero(unseen > NO_MATTER * SETTLED)
    if heavy.size and m >= FEW_IN_TAIL:
        top = np.abs(f[:, heavy]).T
        top = np.sort(np.partition(top, s - m - 1, axis=1)[:, s - m - 1 :], axis=1)
        more, unseen[heavy], k[heavy] = _pareto_tail(top[:, 0], top[:, 1:], np.maximum(ess[heavy] * m / s, 1.0))
        unseen[heavy] /= ess[heavy]
        second[heavy] += more / s
    return np.hypot(np.sqrt(second / ess), unseen), k


def _pareto_tail(
    level: Float[np.ndarray, " Q"], top: Float[np.ndarray, "Q m"], within: Float[np.ndarray, " Q"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the largest terms, sorted: (what their fitted squares exceed the squares by, the mean of those that one in `within`
    exceeds, the shape k)."""
    n, m = top.shape
    excess = top - level[:, None]
    fitted = np.flatnonzero((excess[:, -1] > 1e-9 * level) & (excess[:, m // 4] > 0))
    k, sigma = np.full(n, np.nan), np.zeros(n)
    with np.errstate(all="ignore"):
        if fitted.size:
            k[fitted], sigma[fitted] = fit_generalised_pareto(excess[fitted], np.full(fitted.size, m))
        known = np.isfinite(k) & np.isfinite(sigma)
        k = np.where(k > 0.5, k + (1 + k) / np.sqrt(m), k)  # and its standard error, where more of it costs most
        shape = np.where(known & (np.abs(k) > 1e-9), k, 1e-9)[:, None]
        scale = np.where(known, sigma, 0.0)[:, None]
        log_odds = -np.log1p(-(np.arange(m) + 0.5) / m)
        smooth = ((level[:, None] + np.expm1(shape * log_odds) / shape * scale) ** 2).sum(1)
        more = np.maximum(smooth - (top**2).sum(1), 0)
        last = np.expm1(shape[:, 0] * np.log(within)) / shape[:, 0] * scale[:, 0]
        unseen = level + last + (scale[:, 0] + shape[:, 0] * last) / (1 - shape[:, 0])
    unseen = np.where(known, np.where(shape[:, 0] < 1, unseen, np.inf), top[:, -1])
    return more, unseen, np.where(known, k, np.nan)


def _in_blocks(f, x: np.ndarray, *rows: np.ndarray) -> list[np.ndarray]:
    """f of columns of x and of the rows' elements for them, a few million numbers at once, joined."""
    q = x.shape[-1]
    step = max(1, AT_ONCE // max(1, x.size // max(q, 1)))
    parts = [f(x[..., i : i + step], *(r[i : i + step] for r in rows)) for i in range(0, q, step)]
    return [np.concatenate(a) for a in zip(*parts, strict=True)]


def of_draws(x: Float[np.ndarray, "S Q"], names: list[str], ess: float | None = None) -> Marginals:
    """Of independent draws, or of draws worth `ess` of them."""
    n = len(x)
    worth = np.full(x.shape[1], float(n) if ess is None else min(ess, n))
    return _assembled(x, _even(n), names, worth, worth, worth, None)


def of_weighted(x: Float[np.ndarray, "S Q"], log_weights: Float[np.ndarray, " S"], names: list[str]) -> Marginals:
    """Of independent draws of a proposal, with normalised log-weights."""
    worth, full = (np.full(x.shape[1], n) for n in (1 / np.exp(2 * log_weights).sum(), float(len(x))))
    return _assembled(x, log_weights, names, worth, full, full, None)


def of_chains(x: Float[np.ndarray, "T C Q"], names: list[str]) -> Marginals:
    """Of T draws of each of C chains: errors are those between the chains."""
    t, c, q = x.shape
    x = np.asarray(x, np.float64)
    a, (own, own_sd) = agreement(x), _in_blocks(_own_worth, x)
    worth = a.ess, np.minimum(a.ess, own), np.minimum(a.ess_sd, own_sd)
    return _assembled(x.reshape(t * c, q), _even(t * c), names, *worth, a.rhat)


def interval_error(x: Float[np.ndarray, "T C Q"]) -> Float[np.ndarray, " Q"]:
    """Of the width of the central 68.27 % interval, relative, by its spread between the chains: what can be trusted of a
    quantity whose moments cannot."""
    low, high = np.quantile(x, CENTRAL, axis=0)
    width = high - low
    mean = width.mean(0)
    return width.std(0, ddof=1) / np.sqrt(x.shape[1]) / np.where(mean > 0, mean, np.inf)


def _even(n: int) -> Float[np.ndarray, " n"]:
    return np.full(n, -np.log(n))


def _own_worth(x: Float[np.ndarray, "T C Q"]) -> tuple[np.ndarray, np.ndarray]:
    """Effective numbers of draws for mean and sd, without ranks."""
    centred = x - x.mean((0, 1))
    varies = centred.any((0, 1))
    worth = [np.where(varies, _worth(f), x.shape[0] * x.shape[1]) for f in (centred, centred**2)]
    return worth[0], worth[1]


class BetweenChains(NamedTuple):
    """Of chains, by ranks: effective draws for a mean and for an sd, R-hat, and how far two halves of time are apart."""

    ess: Float[np.ndarray, " Q"]
    ess_sd: Float[np.ndarray, " Q"]
    rhat: Float[np.ndarray, " Q"]
    halves: Float[np.ndarray, " Q"]


def agreement(x: Float[np.ndarray, "T C Q"]) -> BetweenChains:
    """By normal scores, so that a long tail does not pass for chains that disagree; without one, by the draws too.

    A sort is dear: of many quantities the ranks are taken of those that agree least and of those with the largest fourth
    moments.
    """
    t, c, q = x.shape
    sd = x.std((0, 1))
    z = (x - x.mean((0, 1))) / np.where(sd > 0, sd, 1.0)
    kurtosis = (z**4).mean((0, 1))
    plain = [np.where(kurtosis < LONG_TAIL, _worth(f), np.inf) for f in (z, z**2)]
    by_chain = np.swapaxes(x, 0, 1)
    r = split_rhat(by_chain)
    ranked = np.arange(q)
    if q > RANKED:
        ranked = np.union1d(np.argsort(-r)[:RANKED], np.argsort(-kurtosis)[:HEAVIEST])
    scores = normal_scores(by_chain[..., ranked])
    z[..., ranked] = np.swapaxes(scores, 0, 1)
    r[ranked] = np.maximum(r[ranked], rhat_of_scores(by_chain[..., ranked], scores))
    halves = np.abs(z[: t // 2].mean((0, 1)) - z[t // 2 :].mean((0, 1)))
    worth = [np.minimum(own, _worth(f)) for own, f in zip(plain, (z, z**2), strict=True)]
    ess, ess_sd = (np.where(sd > 0, np.minimum(f, t * c), t * c) for f in worth)
    return BetweenChains(ess, ess_sd, np.where(sd > 0, np.where(np.isfinite(r), r, np.inf), np.nan), halves)


def _worth(f: Float[np.ndarray, "T C Q"]) -> Float[np.ndarray, " Q"]:
    """Effective number of terms for their mean, by the variance between chains."""
    return f.var((0, 1)) / np.maximum(f.mean(0).var(0, ddof=1) / f.shape[1], 1e-300)


class Move(NamedTuple):
    """How far weights move what is reported of q: a mean in sd and an sd, relative, at most, of which quantity; and what they
    leave undetermined: 0, SD or MEAN_AND_SD for each."""

    shift: float
    change: float
    worst: str
    undetermined: Int[np.ndarray, " Q"]


def moved(
    x: Float[np.ndarray, "S Q"], of_q: Float[np.ndarray, " S"], of_p: Float[np.ndarray, " S"], names: list[str]
) -> Move:
    """From q to p on the same draws, by normalised log-weights of either: what both err alike cancels."""
    w, s = np.exp(of_q), len(x)
    gain = s * (np.exp(of_p) - w)[:, None]
    by_weights = float(tail_error(gain, np.full(1, float(s)))[0][0])

    def block(x: np.ndarray) -> tuple[np.ndarray, ...]:
        x = np.where(np.isfinite(x), x, 0.0)
        centred = x - w @ x
        sd = np.sqrt(w @ centred**2)
        z = centred / np.where(sd > 0, sd, 1.0)
        terms, worth = (gain * z, 0.5 * gain * (z**2 - 1) * (sd > 0)), np.full(len(sd), float(s))
        open_ = [~(tail_error(f, worth)[0] <= max(SETTLED, BY_CHANCE * by_weights)) for f in terms]
        mark = np.where(open_[0], MEAN_AND_SD, np.where(open_[1], SD, 0))
        return np.abs(terms[0].mean(0)), np.abs(terms[1].mean(0)), mark

    with np.errstate(all="ignore"):
        shift, change, mark = _in_blocks(block, np.asarray(x, np.float64))
    shift, change = np.where(mark < MEAN_AND_SD, shift, 0.0), np.where(mark < SD, change, 0.0)
    worst = names[int(np.argmax(np.maximum(shift, change)))] if names else ""
    return Move(float(shift.max(initial=0.0)), float(change.max(initial=0.0)), worst, mark.astype(int))


def _assembled(x, log_w, names, ess, ess_mean, ess_sd, r_hat) -> Marginals:
    """A mark is the tail's fault: not that of weights which serve no quantity, nor of few draws.

    ess: of the quantiles.   ess_mean, ess_sd: of the terms w_i S (x_i - m)^p.
    """
    s, w = len(log_w), np.exp(log_w)
    uneven, alive = w.min() < w.max(), np.isfinite(log_w)
    by_weights = float(tail_error((s * w - 1)[:, None], np.full(1, float(s)))[0][0]) if uneven else 0.0

    def block(x: np.ndarray, ess: np.ndarray, ess_mean: np.ndarray, ess_sd: np.ndarray) -> tuple[np.ndarray, ...]:
        x = np.clip(np.where(alive[:, None], x, np.median(x, 0)), -LARGEST, LARGEST)
        mean = w @ x
        centred = x - mean
        sd = np.sqrt(w @ centred**2)
        z = centred / np.where(sd > 0, sd, 1.0)
        kurtosis = w @ z**4
        e_mean = tail_error(_terms(log_w, z, z), ess_mean)[0]
        e_sd = tail_error(_terms(log_w, z, np.where(sd > 0, 0.5 * (z**2 - 1), 0.0)), ess_sd)[0]
        long = np.flatnonzero(kurtosis > LONG_TAIL)
        if long.size:
            beyond = _beyond(np.abs(z[:, long]), w)
            e_mean[long], e_sd[long] = e_mean[long] + beyond[0], e_sd[long] + 0.5 * beyond[1]
        bad = ~np.isfinite(e_mean) | ~np.isfinite(mean) | ~np.isfinite(sd)
        e_mean, e_sd = np.where(bad, np.inf, e_mean), np.where(bad | ~np.isfinite(e_sd), np.inf, e_sd)
        mark = np.where(e_sd > np.maximum(SETTLED, BY_CHANCE * np.maximum(by_weights, (2 * ess) ** -0.5)), SD, 0)
        in_scale, tail = e_mean.copy(), np.full(len(sd), np.nan)
        some = np.flatnonzero(mark)
        if some.size:  # where there is no sd to measure by, a mean is measured by the width of the middle
            away, width = _deviations(x[:, some], w)
            tail[some] = tail_error(away, np.full(some.size, float(s)))[1]
            in_scale[some] *= np.maximum(sd[some] / np.maximum(width, 1e-300), 1.0)
        mark = np.where(
            in_scale > np.maximum(SETTLED, BY_CHANCE * np.maximum(by_weights, ess**-0.5)), MEAN_AND_SD, mark
        )
        return mean, sd, e_mean * sd, e_sd * sd, tail, mark, kurtosis

    with np.errstate(all="ignore"):
        mean, sd, mcse_mean, mcse_sd, tail, mark, kurtosis = _in_blocks(block, x, ess, ess_mean, ess_sd)
    r = np.full(len(mean), np.nan) if r_hat is None else r_hat
    return Marginals(list(names), mean, sd, ess, r, mcse_mean, mcse_sd, tail, mark.astype(int), kurtosis, s)


def _terms(log_w: Float[np.ndarray, " S"], z: Float[np.ndarray, "S Q"], f: Float[np.ndarray, "S Q"]) -> np.ndarray:
    """S w f. Where a weight is too small for a number, and f as large, by their logarithms: a moment that does not exist may
    hide there."""
    out = len(log_w) * np.exp(log_w)[:, None] * f
    tiny = np.flatnonzero(np.isfinite(log_w) & (log_w < SMALLEST))
    if tiny.size:
        size = np.log(len(log_w)) + log_w[tiny, None] + np.log(np.maximum(np.abs(f[tiny]), 1e-300))
        out[tiny] = np.sign(f[tiny]) * np.exp(np.minimum(size, -SMALLEST))
    return out


def _beyond(z: Float[np.ndarray, "S Q"], w: Float[np.ndarray, " S"]) -> tuple[np.ndarray, np.ndarray]:
    """What the means of z > 0 and of its square gain beyond the outermost draws, if each e-fold of z goes on to hold less than
    the one before by the factor of the last two: infinite where it is none. 0 where z does not reach so far that e-folds say
    something."""
    found = np.zeros((2, z.shape[1]))
    for j, column in enumerate(z.T):
        used = column[w > 0]
        if used.size < OUTERMOST:
            continue
        end = np.partition(used, -OUTERMOST)[-OUTERMOST]
        if end < FAR * np.median(used):
            continue
        last, before = ((column > end * np.exp(-i - 1)) & (column <= end * np.exp(-i)) for i in (0, 1))
        for p in (1, 2):
            held, earlier = (float(w[at] @ column[at] ** p) for at in (last, before))
            ratio = held / earlier if earlier > 0 else 0.0
            found[p - 1, j] = held * ratio / (1 - ratio) if ratio < 1 else np.inf
    return found[0], found[1]


def _deviations(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(|x - median| of as many draws as there are, by their weights, in units of their median; that in a normal's sd)."""
    if w.min() < w.max():
        at = np.searchsorted(np.cumsum(w), (np.arange(len(w)) + 0.5) / len(w))
        x = x[np.minimum(at, len(w) - 1)]
    x = np.abs(x - np.median(x, 0))
    middle = np.maximum(np.median(x, 0), 1e-300)
    return x / middle, middle / NORMAL_QUARTILE
