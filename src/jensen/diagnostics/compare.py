"""Models compared by what they predict: PSIS-LOO, paired differences, stacking weights, evidence."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import DataError, ModelError, OptionError, explain
from .evidence import evidence
from .loo import LOO, loo
from .pointwise import in_precision_of, is_of_sites, observed_of

if TYPE_CHECKING:
    import pandas as pd

GAP = 1e-6  # nats an observation: how far the stacking weights may be from the best
STEPS = 2000


def compare(fits: Mapping[str, Any]) -> "pd.DataFrame":
    """Fits of several models to the same data, the best predictions first.

    Columns:    elpd, se: expected log predictive density by PSIS-LOO, nats, larger is better.   diff, diff_se: to the
                best model, and the standard error of that over paired observations; a difference of a few nats, or
                of less than twice its error, is none.   p_loo, n_bad: as in `LOO`.   weight: stacking weights, for a
                mixture of the models' predictions.   log_evidence, log_evidence_se: log p(x), which also counts the
                prior.   verdict: of the fit.   In `.attrs["reasons"]`: what to know, in sentences.
    Arguments:  fits: name -> fit (or name -> LOO of it: then no evidence and no verdict).
    Raises:     DataError where the fits are not of the same data; OptionError for no fits; ModelError as `loo`.
    Example:    compare({"linear": fit, "quadratic": other})
    Reference:  Vehtari, Gelman and Gabry (2017); Yao, Vehtari, Simpson and Gelman (2018), stacking.
    """
    import pandas as pd

    if not isinstance(fits, Mapping) or not fits:
        because, instead = "models are told apart by name", 'compare({"one": fit, "other": fit})'
        raise OptionError(explain(f"compare({fits!r:.40})", "it is no dictionary of fits", because, instead))
    _check_same_data({n: f for n, f in fits.items() if not isinstance(f, LOO)})
    scores = {name: f if isinstance(f, LOO) else _in_its_precision(loo, f) for name, f in fits.items()}
    _check_same_size(scores)
    order = sorted(scores, key=lambda name: -scores[name].elpd)
    pointwise = np.stack([scores[name].pointwise for name in order], 1)
    difference = pointwise - pointwise[:, :1]
    table = pd.DataFrame(
        {
            "elpd": [scores[n].elpd for n in order],
            "se": [scores[n].se for n in order],
            "diff": difference.sum(0),
            "diff_se": np.sqrt(len(difference)) * difference.std(0),
            "p_loo": [scores[n].p_loo for n in order],
            "n_bad": [scores[n].n_bad for n in order],
            "weight": stacking_weights(pointwise),
            **_evidence([fits[n] for n in order]),
        },
        index=pd.Index(order, name="model"),
    )
    table.attrs["reasons"] = _reasons(table, scores)
    return table


def stacking_weights(pointwise: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " K"]:
    """Weights on the simplex that maximise sum_i log sum_k w_k p_k(y_i | y_-i).

    Definition: the problem is concave. EM steps w_k <- w_k g_k, g_k = mean_i p_ik / sum_j w_j p_ij, start and end it
                (each raises the sum), with sequential quadratic programming between. max_k g_k - 1 bounds how much
                more a mean term could be.
    Arguments:  pointwise: log p_k(y_i | y_-i).
    Reference:  Yao, Vehtari, Simpson and Gelman (2018).  [yao2018stacking]
    """
    from scipy.optimize import minimize

    k = pointwise.shape[1]
    finite = np.where(np.isfinite(pointwise), pointwise, -1e300)
    p = np.exp(finite - finite.max(1, keepdims=True))
    pull = lambda w: (p / (p @ w)[:, None]).mean(0)
    w = _expectation_maximisation(np.full(k, 1 / k), pull, 50)
    if k > 1 and pull(w).max() - 1 > GAP:
        sum_to_one = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(k)}
        loss = lambda w: (-np.log(np.maximum(p @ w, 1e-300)).mean(), -(p / np.maximum(p @ w, 1e-300)[:, None]).mean(0))
        found = minimize(loss, w, jac=True, bounds=[(0, 1)] * k, constraints=[sum_to_one], tol=1e-12, method="SLSQP")
        new = np.maximum(found.x, 0) / np.maximum(found.x, 0).sum() if np.isfinite(found.x).all() else w
        w = new if loss(new)[0] <= loss(w)[0] else w
    return _expectation_maximisation(w, pull, STEPS)


def _expectation_maximisation(w: np.ndarray, pull: Any, steps: int) -> np.ndarray:
    for _ in range(steps):
        g = pull(w)
        if g.max() - 1 <= GAP:
            break
        w = w * g / (w @ g)
    return w


def _evidence(fits: list[Any]) -> dict[str, list]:
    values, errors, verdicts = [], [], []
    for fit in fits:
        value = error = float("nan")
        if not isinstance(fit, LOO):
            try:
                found = _in_its_precision(evidence, fit)
                value, error = found.log_evidence, found.se
            except ModelError:  # draws of chains, and none of q: what the fit itself says
                value, error = fit.log_evidence, fit.diagnosis.log_evidence_se
        values.append(value)
        errors.append(error)
        verdicts.append("" if isinstance(fit, LOO) else str(fit.verdict))
    return {"log_evidence": values, "log_evidence_se": errors, "verdict": verdicts}


def _reasons(table: "pd.DataFrame", scores: dict[str, LOO]) -> list[str]:
    reasons = [f"{n}: {s.reasons[0]}" for n, s in scores.items() if s.n_bad]
    names = [str(n) for n in table.index]
    reasons += [
        f"{n} is UNRELIABLE: its row may be wrong."
        for n, v in zip(names, table["verdict"], strict=True)
        if v == "UNRELIABLE"
    ]
    behind = zip(names[1:], -table["diff"].to_numpy()[1:], table["diff_se"].to_numpy()[1:], strict=True)
    close = [n for n, gap, error in behind if gap < max(4.0, 2 * error)]
    if len(close):
        reasons.append(f"{names[0]} is not clearly better than {', '.join(close)}: within 4 nats or twice the error.")
    return reasons


def _check_same_size(scores: dict[str, LOO]) -> None:
    sizes = {name: s.n for name, s in scores.items()}
    if len(set(sizes.values())) > 1:
        raise _differ(f"they have different numbers of observations ({sizes})")


def _check_same_data(fits: dict[str, Any]) -> None:
    """Observed sites of the same name are equal; with other names, all of them in order; rows by their own names."""
    seen = [(name, is_of_sites(fit.model), _in_its_precision(_data, fit)) for name, fit in fits.items()]
    for (one, sites, a), (other, also, b) in ((seen[0], s) for s in seen[1:]):
        if sites and also and set(a) != set(b):
            a, b = ({"": np.concatenate([np.ravel(v) for v in d.values()])} for d in (a, b))
        for name in set(a) & set(b):
            if a[name].shape != b[name].shape or not _same(a[name], b[name]):
                raise _differ(f"`{name or 'the observed values'}` of {other!r} are not those of {one!r}")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal in the lesser precision of the two: one of the fits may have read the data in single precision."""
    if a.dtype != b.dtype and np.float32 in (a.dtype, b.dtype):
        a, b = a.astype(np.float32), b.astype(np.float32)
    return np.array_equal(a, b)


def _in_its_precision(fn: Callable, fit: Any) -> Any:
    with in_precision_of(fit.draws):
        return fn(fit)


def _data(fit: Any) -> dict[str, np.ndarray]:
    if is_of_sites(fit.model):
        return {n: np.where(_spread(counts, a), a, 0) for n, (a, counts) in observed_of(fit.model).items()}
    leaves, _ = jax.tree_util.tree_flatten_with_path(fit.rows)
    held = [(p, a) for p, a in leaves if isinstance(a, (np.ndarray, jax.Array))]  # not those on disk
    return {jax.tree_util.keystr(p, simple=True, separator=".") or "data": np.asarray(a) for p, a in held}


def _spread(counts: np.ndarray, value: np.ndarray) -> np.ndarray:
    """What counts, broadcast against the value's own axes."""
    if counts.ndim > value.ndim or counts.shape != value.shape[: counts.ndim]:
        return np.asarray(True)
    return counts.reshape(counts.shape + (1,) * (value.ndim - counts.ndim))


def _differ(wrong: str) -> DataError:
    because = "a sum of log predictive densities compares models of the same observations only"
    return DataError(explain("comparing fits", wrong, because, "fits to the same rows, in the same order"))
