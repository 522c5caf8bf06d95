"""Simulation-based calibration: is the method right about data of which the truth is known?"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..batch import Batch
from ..compiled import compiled, key_for
from ..errors import ModelError, OptionError, check_seed, explain
from ..function import Static
from ..models.base import AbstractModel
from ..tree import Layout
from .pointwise import in_precision_of
from .uniformity import symmetric_p_value, uniform_p_value

STATES = 128  # of a rank: few enough draws that those of a chain are nearly independent
FEWEST = 10  # simulations
LOG_JOINT = "log joint"  # a quantity that also depends on the data: it sees what the coordinates one by one do not
CENTRAL = 0.9
SHOWN = 5
FAILED = 0.1


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Where true values, drawn from the prior, lie among draws of the posteriors fitted to data simulated from them.

    ranks:    coordinate -> (n,): how many of `n_ranks` - 1 draws lie below the true value. Uniform on
              {0, ..., n_ranks - 1} where the posterior is right. "log joint" is log p(z, x) as a coordinate.
    p_values: coordinate -> of uniformity, by the simultaneous envelope of the ranks' distribution.
    vsbc:     coordinate -> of symmetry of P(true value < draw) about 1/2: small where the posterior's middle is off.
    bias:     coordinate -> mean of P(true value < draw) - 1/2: above 0 where draws lie too high.
    coverage: coordinate -> share of true values inside the central 90% interval.
    ok:       no p-value is below 1 - prob after Bonferroni's correction, and at most a tenth of the fits failed.
    """

    ranks: dict[str, Int[np.ndarray, " n"]]
    n_ranks: int
    p_values: dict[str, float]
    vsbc: dict[str, float]
    bias: dict[str, float]
    coverage: dict[str, float]
    n_simulations: int
    n_failed: int
    n_unreliable: int
    prob: float
    ok: bool
    reasons: list[str]

    def __repr__(self) -> str:
        head = f"Calibration: {'calibrated' if self.ok else 'not calibrated'}, {self.n_simulations} simulations"
        return "\n".join([head] + [f"  - {r}" for r in self.reasons])

    def plot(self, names: list[str] | None = None) -> Any:
        """A Matplotlib figure: distribution of the ranks less the uniform one, with its simultaneous envelope.

        Arguments:  names: coordinates; default: up to twelve, those with the smallest p-values.
        """
        from ..report.calibration import plot_calibration

        return plot_calibration(self, names)


def calibrate(
    fit: Any,
    n_simulations: int = 100,
    seed: int = 0,
    prob: float = 0.95,
    *,
    refit: Callable[..., Any] | None = None,
    simulate: Callable[[Array], tuple[PyTree, PyTree]] | None = None,
) -> Calibration:
    """Simulation-based calibration (SBC, and VSBC for the middle) of the method that made this fit.

    Definition: z0 ~ p(z), x ~ p(x | z0), posterior fitted to x; over many such pairs the rank of z0 among draws of a
                right posterior is uniform. Each coordinate in the user's own coordinates, and log p(z, x).
    Arguments:  fit: of a NumPyro model with proper priors; or of any model, with `simulate`.   seed: of simulations
                and fits.   prob: 1 - the level of `ok`, and the mass of the plotted envelope.
                refit: `refit(model, seed=...)`, and `refit(model, rows, seed=...)` for models that do not hold their
                data -> fit; default: `fit.refit`.   simulate: key -> (latent, rows), for models that cannot
                simulate, the latent as `log_density` takes it; (latent, model) where the model holds its data; for
                NumPyro (values of latents, of observed).
    Returns:    what was found; fits that failed are counted and left out, UNRELIABLE ones counted and kept.
    Raises:     ModelError for an improper prior, a factor, a latent for each row; OptionError.
    Cost:       n_simulations fits; nothing is compiled after the first.
    Reference:  Talts, Betancourt, Simpson, Vehtari and Gelman (2018); Yao, Vehtari, Simpson and Gelman (2018);
                Modrak et al. (2023), for the log joint.  [talts2018sbc, yao2018vsbc]
    """
    _check(n_simulations, prob)
    make = _maker(fit, simulate, seed)
    refit = refit if refit is not None else getattr(fit, "refit", None)
    if refit is None:
        because, instead = "the method is judged on data made for the purpose", "refit=functools.partial(jn.fit, ...)"
        raise ModelError(explain("calibrate(fit)", "this fit does not say how to fit again", because, instead))
    rng = np.random.default_rng([check_seed(seed, "calibrate"), 1])
    seen, errors, unreliable, names = [], [], 0, []
    for i in range(n_simulations):
        truth, latent, model, rows = make(i)
        names = [*Layout(truth).names(), LOG_JOINT]
        try:
            again = refit(model, seed=seed + i) if rows is None else refit(model, rows, seed=seed + i)
            seen.append(_rank(again, model, truth, latent, rows, rng))
            unreliable += str(again.verdict) == "UNRELIABLE"
        except Exception as error:  # a failure is a finding about the method, not the end of the study
            errors.append(error)
    ranks, p = (np.stack(a) for a in zip(*seen, strict=True)) if seen else (np.zeros((0, len(names))),) * 2
    return _result(dict(zip(names, zip(ranks.T, p.T, strict=True), strict=True)), errors, unreliable, prob)


def _check(n_simulations: int, prob: float) -> None:
    if isinstance(n_simulations, bool) or not isinstance(n_simulations, (int, np.integer)) or n_simulations < FEWEST:
        asked, wrong = f"calibrate(n_simulations={n_simulations!r})", f"it is not a whole number of {FEWEST} or more"
        raise OptionError(explain(asked, wrong, "a distribution is judged by many ranks", "n_simulations=100"))
    if not 0 < prob < 1:
        because = "1 - prob is the level of the tests"
        raise OptionError(explain(f"calibrate(prob={prob})", "it is not between 0 and 1", because, "prob=0.95"))


def _maker(fit: Any, simulate: Callable | None, seed: int) -> Callable[[int], tuple[PyTree, PyTree, Any, PyTree]]:
    """i -> (true latents in the user's coordinates; as `log_density` takes them, or None where the model can tell; model;
    rows or None where the model holds its data)."""
    model, asked = fit.model, "calibrate(fit)"
    if model is None:
        because, instead = "data are simulated from it", "load(folder, model=...)"
        raise ModelError(explain(asked, "this fit was loaded without its model", because, instead))
    if fit.plated:
        because = "true values of latents that belong to rows say nothing about a decoder trained on the data"
        raise ModelError(explain(asked, "every row has a latent of its own", because, "a model with global latents"))
    arrays = lambda tree: jax.tree.map(jnp.asarray, tree)
    if hasattr(model, "structure"):
        from ..models.adapters import numpyro_simulate as numpyro

        draw = simulate if simulate is not None else lambda key: numpyro.simulate(model, key)

        def make(i: int) -> tuple[PyTree, PyTree, Any, PyTree]:
            truth, values = draw(key_for(seed, f"simulate {i}"))
            return arrays(truth), None, numpyro.with_observed(model, arrays(values)), None

        return make
    if simulate is None:
        wrong, because = f"a {type(model).__name__} cannot simulate", "a density says nothing of how to draw data"
        raise ModelError(explain(asked, wrong, because, "simulate=lambda key: (latent, rows), or a NumPyro model"))

    def make_rows(i: int) -> tuple[PyTree, PyTree, Any, PyTree]:
        z, data = simulate(key_for(seed, f"simulate {i}"))
        new, rows = (data, None) if isinstance(data, AbstractModel) else (model, data)
        return new.constrain(arrays(z)), arrays(z), new, rows

    return make_rows


def _rank(
    fit: Any, model: Any, truth: PyTree, latent: PyTree, rows: PyTree, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Of each coordinate, and of log p(z, x): rank of the true value among draws, and share of draws above it."""
    n = len(fit.log_p)
    flat = lambda a: np.asarray(a, np.float64)
    draws = np.concatenate([flat(a).reshape(n, -1) for a in jax.tree.leaves(fit._posterior)], 1)
    true = np.concatenate([flat(a).reshape(-1) for a in jax.tree.leaves(truth)])
    if not np.isfinite(draws).all() or draws.shape[1] != true.size:
        wrong = (
            f"draws of {draws.shape[1]} coordinates for {true.size} true values, {np.isnan(draws).sum()} of them NaN"
        )
        raise ModelError(explain("ranking true values", wrong, "a rank needs draws", "a fit of the model it is given"))
    arrays, static = eqx.partition(model, eqx.is_array)
    with in_precision_of(fit.draws):
        at_truth = float(_log_joint(Static(static), arrays, truth, latent, rows))
    log_p = flat(fit.log_p)
    draws = np.column_stack([draws, np.where(np.isnan(log_p), -np.inf, log_p)])
    true = np.append(true, at_truth)
    equal = draws == true
    share = (draws > true).mean(0) + 0.5 * equal.mean(0)
    thin = np.linspace(0, n - 1, STATES - 1).astype(int)
    return (draws[thin] < true).sum(0) + rng.integers(0, equal[thin].sum(0) + 1), share  # ties broken by chance


@compiled(0)
def _log_joint(static: Static, arrays: Any, truth: PyTree, latent: PyTree, rows: PyTree) -> Array:
    model = eqx.combine(arrays, static.tree)
    return model.log_density(model.unconstrain(truth)[0] if latent is None else latent, Batch(rows))


def _result(seen: dict[str, tuple[np.ndarray, np.ndarray]], errors: list, unreliable: int, prob: float) -> Calibration:
    n = len(next(iter(seen.values()))[0])
    coordinates = [name for name in seen if name != LOG_JOINT]
    p_values = {name: uniform_p_value(ranks, STATES) if n else 1.0 for name, (ranks, _) in seen.items()}
    middle = {name: symmetric_p_value(seen[name][1]) if n else 1.0 for name in coordinates}
    bias = {name: float(seen[name][1].mean() - 0.5) if n else 0.0 for name in coordinates}
    inside = {name: float((np.abs(seen[name][1] - 0.5) <= CENTRAL / 2).mean()) if n else 0.0 for name in coordinates}
    level = (1 - prob) / max(len(p_values) + len(middle), 1)
    few = n < FEWEST or len(errors) > FAILED * (n + len(errors))
    found = _findings(p_values, middle, bias, inside, n, level)
    return Calibration(
        ranks={name: ranks for name, (ranks, _) in seen.items()}, n_ranks=STATES, p_values=p_values, vsbc=middle,
        bias=bias, coverage=inside, n_simulations=n + len(errors), n_failed=len(errors), n_unreliable=unreliable,
        prob=prob, ok=not (found or few), reasons=_sentences(found, errors, unreliable, n, len(coordinates)),
    )  # fmt: skip


def _findings(p_values: dict, middle: dict, bias: dict, inside: dict, n: int, level: float) -> list[str]:
    """What is wrong, the smallest p-value first."""
    found = []
    for name, p in p_values.items():
        if p < level and name == LOG_JOINT:
            found.append((p, f"The ranks of the {LOG_JOINT} are not uniform (p = {p:.1g}): the posterior is off as a "
                             "whole, in its width or in how coordinates hang together."))  # fmt: skip
        elif p < level:
            width = "too narrow" if inside[name] < CENTRAL else "too wide, or its shape is off"
            found.append((p, f"`{name}`: the ranks are not uniform (p = {p:.1g}); {round(n * inside[name])} of {n} true "
                             f"values lie in the central {CENTRAL:.0%} interval: the posterior is {width}."))  # fmt: skip
    for name, p in middle.items():
        if p < level:
            side = "high" if bias[name] > 0 else "low"
            found.append((p, f"`{name}`: the posterior's middle is too {side} (p = {p:.1g}): a draw exceeds the true "
                             f"value with probability {0.5 + bias[name]:.2f} on average."))  # fmt: skip
    return [sentence for _, sentence in sorted(found, key=lambda f: f[0])]


def _sentences(found: list[str], errors: list, unreliable: int, n: int, n_coordinates: int) -> list[str]:
    reasons = found[:SHOWN]
    if len(found) > SHOWN:
        reasons.append(f"{len(found) - SHOWN} more findings of this kind: see `p_values` and `vsbc`.")
    if errors:
        first = str(errors[0]).splitlines() or [""]
        reasons.append(f"{len(errors)} of {n + len(errors)} fits failed, and are left out: the first with "
                       f"{type(errors[0]).__name__}: {first[0]:.200}")  # fmt: skip
    if n < FEWEST:
        reasons.append(f"Only {n} fits succeeded: too few to judge.")
    if unreliable:
        reasons.append(f"{unreliable} of {n} fits call themselves UNRELIABLE; their ranks are kept.")
    if not found and n >= FEWEST:
        reasons.append(f"Among {n} simulated data sets the true values lie where the posteriors say, for all "
                       f"{n_coordinates} coordinates.")  # fmt: skip
    return reasons
