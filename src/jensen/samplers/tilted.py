"""More draws where they are needed: proposals tilted towards the tails that hold a reported mean or sd."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from ..algorithms.gaussian import Gaussian, Mixture, StudentT, safe_cholesky
from ..algorithms.importance import Weighted, weighted
from ..algorithms.low_rank import DENSE
from ..algorithms.target import Target
from ..diagnostics.marginals import Marginals, of_weighted

ROUNDS = 3
MOST = 6  # quantities a round tilts towards
ONE_SIDE = 0.05  # share of a quantity's spread below which a side of it is left alone
HEAVY, LIGHT = 1.0, 5.0  # degrees of freedom in few dimensions, and in more: a tail of all at once is rare there
FEW = 12


def settle(
    target: Target,
    report: Callable[[Float[np.ndarray, "n D"]], Float[np.ndarray, "n Q"]],
    names: list[str],
    weighed: Weighted,
    proposal: Any,
    seed: int,
    most: float,
) -> tuple[Weighted, Marginals]:
    """The weights with those of further draws, and the marginals they settle.

    Definition: for a quantity x whose mean or sd is not determined, draws of Gaussians at the means of the posterior
                tilted by (x - E x)^2, above and below E x, half of them with heavy tails. All draws weigh p over the
                mixture of all that was drawn from, so that every round serves every estimate.
    Arguments:  report: from the target's coordinates to what is reported, called `names`.   most: evaluations it may take.
    Cost:       as many evaluations a round as there were draws, at most three rounds.
    Reference:  Owen and Zhou (2000), the mixture; Rainforth, Golinski, Wood and Zaidi (2020), the tilt.
                [owen2000safe, rainforth2020target]
    """
    u, log_p, x, n = weighed.u, weighed.log_p, report(weighed.u), len(weighed.u)
    parts, terms = [(n, proposal)], [proposal.log_prob(u)]
    found = weighed, of_weighted(x, weighed.log_weights, names)
    rng = np.random.default_rng([seed, 41])
    for _ in range(ROUNDS):
        now, m = found
        if not m.undetermined.any() or target.budget.spent or n > most:
            break
        most -= n
        new = tilted(now, x, m)
        if new is None:
            break
        fresh = new.sample(rng, n)
        fresh = fresh[np.isfinite(fresh).all(1)]
        log_p, u = np.concatenate([log_p, target.value(fresh)]), np.concatenate([u, fresh])
        x = np.concatenate([x, report(fresh)])
        terms = [np.concatenate([t, q.log_prob(fresh)]) for t, (_, q) in zip(terms, parts, strict=True)]
        parts, terms = [*parts, (len(fresh), new)], [*terms, new.log_prob(u)]
        share = np.log([k for k, _ in parts]) - np.log(len(u))
        joint = weighted(u, log_p, np.asarray(logsumexp(np.add(terms, share[:, None]), 0)), weighed.undefined)
        found = joint, of_weighted(x, joint.log_weights, names)
    return found


def tilted(weighed: Weighted, x: Float[np.ndarray, "n Q"], m: Marginals) -> Mixture | None:
    """Gaussians, and t distributions, where the undetermined quantities have their tails; None where numbers end before."""
    w, u = weighed.weights, weighed.u
    alive = w > 0
    w, u, x = w[alive], u[alive], x[alive]
    root, heavy = _root(u, w), HEAVY if u.shape[1] <= FEW else LIGHT
    errors = np.where(m.undetermined > 0, m.errors()[1], -1.0)
    components, weights = [], []
    for j in np.argsort(-np.where(np.isnan(errors), np.inf, errors))[:MOST]:
        if m.undetermined[j] == 0:
            continue
        away = x[:, j] - m.mean[j]
        spread = w * away**2
        for side in (spread * (away > 0), spread * (away < 0)):
            share = side.sum() / spread.sum()
            if share > ONE_SIDE:  # not of infinite ones
                at = Gaussian((side / side.sum()) @ u, root)
                components += [at, StudentT(at, heavy)]
                weights += [share / 2, share / 2]
    return Mixture(tuple(components), np.array(weights) / np.sum(weights)) if components else None


def _root(u: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Of the posterior's covariance; of its variances in many dimensions."""
    centred = (u - w @ u) * np.sqrt(w)[:, None]
    if u.shape[1] > DENSE:
        return np.sqrt(np.maximum((centred**2).sum(0), 1e-300))
    return safe_cholesky(centred.T @ centred)
