"""log p(x) of rows, each with a latent of its own: by importance sampling from q, from a Gaussian that MCMC found, or by
annealed importance sampling. Rows go through in blocks, draws in rounds, so that memory is bounded."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..arrays import lifted
from ..batch import Batch
from ..compiled import compiled, key_for
from ..errors import DataError, IncompatibleComposition, ModelError, OptionError, explain
from ..facts import Fact
from ..families.base import AbstractFamily
from ..families.gaussian import log_normal_from_noise
from ..families.improved import Improved
from ..function import Static
from ..gradients.base import Bound
from ..hamiltonian import adapted, at, leap
from ..models.base import AbstractModel
from ..objectives import ELBO
from ..tree import Layout, default_float, length

if TYPE_CHECKING:
    from ..fit.result import Fit

CELLS = 100, 64  # rows, and draws or chains of each, at once
WIDER = 1.2  # the proposal's sd, in those of the chains
CHAINS, BURN_IN, KEPT, LEAPFROG = 16, 30, 30, 5  # of the run that finds the Gaussian
STEP_SIZE, TARGET, GAIN = 0.1, 0.8, 0.2  # at the start; acceptance sought; gain while there is nothing to keep
FLOOR = 1e-6  # of an sd, against a chain that did not move
METHODS = "importance", "hmc", "ais"


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """log p(x) of each row, nats.

    values: (n,), each a lower bound of log p(x) on average.   errors: (n,), standard errors from the draws' weights.
    ess: (n,), effective number of the n_samples draws.   upper: (n,), upper bounds on average, where there are any.
    method: how.   acceptance: (n,), of the Markov chains; NaN without.
    """

    values: Float[np.ndarray, " n"]
    errors: Float[np.ndarray, " n"]
    ess: Float[np.ndarray, " n"]
    n_samples: int
    method: str
    upper: Float[np.ndarray, " n"] | None = None
    acceptance: Float[np.ndarray, " n"] | None = None

    @property
    def mean(self) -> float:
        """Nats a row."""
        return float(self.values.mean(dtype=np.float64))

    @property
    def se(self) -> float:
        """Standard error of the mean over rows."""
        n = len(self.values)
        return float(self.values.std(ddof=1, dtype=np.float64) / math.sqrt(n)) if n > 1 else math.nan

    def __repr__(self) -> str:
        few = f"effective draws of {self.n_samples}: median {np.median(self.ess):.1f}, least {self.ess.min():.1f}"
        upper = "" if self.upper is None else f", below {self.upper.mean():.2f}"
        return f"LogLikelihood({self.mean:.2f} +- {self.se:.2f} nats a row{upper}; {len(self.values)} rows; {few})"


class Weights(eqx.Module):
    """Running sums of weights: log sum w, log sum w^2, n."""

    first: Array
    second: Array

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> "Weights":
        low = jnp.full(shape, -jnp.inf, default_float())
        return cls(low, low)

    def add(self, log_w: Float[Array, "K *B"]) -> "Weights":
        more = jax.nn.logsumexp(log_w, axis=0), jax.nn.logsumexp(2 * log_w, axis=0)
        return Weights(jnp.logaddexp(self.first, more[0]), jnp.logaddexp(self.second, more[1]))

    def result(self, n: int) -> tuple[Array, Array, Array]:
        """(log mean w, its standard error, effective sample size)."""
        ess = jnp.exp(2 * self.first - self.second)
        error = jnp.sqrt(jnp.maximum(1 / ess - 1 / n, 0))
        return self.first - math.log(n), error, ess


def log_likelihood(
    fit: "Fit", rows: Any = None, method: str = "importance", n_samples: int = 1000, seed: int = 0, **options: Any
) -> LogLikelihood:
    """log p(x) of rows, x -> log int p(x, z) dz, estimated from below.

    Definition: "importance": log (1/K) sum_k p(x, z_k) / q(z_k | x), z_k ~ q. Where q has extra variables (a mixing draw),
                they are part of the draw and of the weight, so that the estimate of p(x) is unbiased.
                "hmc": the same with the Gaussian that has the mean, and 1.2 times the sds, of HMC chains started from q.
                "ais": annealed importance sampling from q, or the prior, to p(x, z), moved by HMC; n_samples chains a row.
    Arguments:  fit: of a model with a latent for each row.   rows: left out, the fitted ones.   n_samples: K.
                options: n_temperatures, n_leapfrog, start ("q" or "prior") of "ais"; n_chains, n_burn_in, n_keep of "hmc".
    Returns:    `LogLikelihood`; each value lies below log p(x) on average, the less so the more effective draws it has.
    Raises:     ModelError, DataError, OptionError; IncompatibleComposition where log p is not differentiable.
    Cost:       K evaluations a row; "ais" K n_temperatures n_leapfrog gradients, and a pilot run with a few chains.
    Reference:  Burda, Grosse and Salakhutdinov (2016); Ruiz and Titsias (2019), section 5.2; Wu et al. (2017), AIS for
                decoders.  [wu2017quantitative]
    """
    model, family = fit.model, fit.family
    if method not in METHODS:
        asked, because = f"log_likelihood(method={method!r})", "it is looked up by name"
        raise OptionError(explain(asked, "there is no such method", because, f"one of {METHODS}"))
    if model is None or not model.plated:
        wrong = "this fit was loaded without its model" if model is None else "all rows share one latent"
        raise ModelError(explain("`log_likelihood`", wrong, "it is log p(x) of each row", "fit.evidence(), fit.loo()"))
    rows = checked_rows(fit, rows)
    q = with_density(family)
    if method != "importance":
        needs_gradients(model, f"log_likelihood(method={method!r})")
    if method == "ais":
        from .annealing import annealed

        return annealed(model, q, rows, n_samples, seed, **options)
    if method == "hmc":
        step = functools.partial(_around_chains, **_chain_options(options))
    else:
        _no_options(options)
        step = _from_q
    return over_rows(step, model, q, rows, n_samples, seed, method)


def checked_rows(fit: "Fit", rows: Any) -> PyTree:
    """Raises: DataError for rows that are not numbers, or where there are none."""
    from ..fit.rows import as_rows

    rows = fit.rows if rows is None else lifted(as_rows(rows))
    if rows is None:
        because = "this fit was loaded without its data"
        raise DataError(explain("`log_likelihood`", "there are no rows", because, "log_likelihood(X)"))
    return rows


def with_density(family: AbstractFamily) -> AbstractFamily:
    """q, or what of it has a density. Raises: ModelError."""
    family = family.start if isinstance(family, Improved) else family
    if Fact.LOG_RATIO not in family.facts:
        because, instead = "its draws are weighed by p / q", "a family with a density, fitted to the same model"
        raise ModelError(explain("`log_likelihood`", f"{type(family).__name__} has no density", because, instead))
    return family


def needs_gradients(model: AbstractModel, asked: str) -> None:
    """Raises: IncompatibleComposition where HMC cannot move the latents."""
    kinds = getattr(model, "site_kinds", {}).values()
    if Fact.DIFFERENTIABLE not in model.facts or any(k != "real" for k in kinds):
        because, wrong = (
            "it moves along gradients",
            "the latents are not real numbers with a differentiable log density",
        )
        raise IncompatibleComposition(explain(asked, wrong, because, 'method="importance"'))


def _no_options(options: dict) -> None:
    if options:
        because = "importance sampling from q has n_samples alone"
        raise OptionError(
            explain(f"log_likelihood with {sorted(options)}", "it does not apply", because, 'method="ais"')
        )


def _chain_options(options: dict) -> dict[str, int]:
    known = {"n_chains": CHAINS, "n_burn_in": BURN_IN, "n_keep": KEPT, "n_leapfrog": LEAPFROG}
    return counts("hmc", options, known)


def counts(method: str, options: dict, known: dict[str, int]) -> dict[str, int]:
    """The options with their defaults. Raises: OptionError."""
    for name, value in options.items():
        if name not in known or not isinstance(value, int) or isinstance(value, bool) or value < 1:
            because = f"{method} takes the counts {list(known)}"
            asked, wrong = f"log_likelihood({name}={value!r})", "it is unknown, or not a positive whole number"
            raise OptionError(explain(asked, wrong, because, f"{next(iter(known.items()))}"))
    return known | options


def over_rows(
    step: Callable,
    model: AbstractModel,
    family: AbstractFamily,
    rows: PyTree,
    n_samples: int,
    seed: int,
    method: str,
    extra: PyTree = None,
) -> LogLikelihood:
    """`step(key, bound, n_samples[, extra]) -> (value, error, ess, acceptance)` on blocks of rows, the last one padded.

    extra: what else belongs to the rows.
    """
    if not isinstance(n_samples, int) or n_samples < 1:
        because = "it counts draws"
        raise OptionError(explain(f"n_samples={n_samples!r}", "not a positive whole number", because, "n_samples=1000"))
    family.check_rows(rows)
    arrays, static = eqx.partition((model, family, step), eqx.is_array)
    key, n, out = key_for(seed, f"log likelihood by {method}"), length(rows), []
    size = min(CELLS[0], n)
    for i, start in enumerate(range(0, n, size)):
        index = np.minimum(np.arange(start, start + size), n - 1)
        block = jax.tree.map(lambda a: jnp.asarray(a[index]), (rows, extra))
        key_data = jr.key_data(jr.fold_in(key, i))
        out.append(jax.device_get(_block(Static(static), arrays, key_data, n_samples, *block)))
    values, errors, ess, acceptance = (np.concatenate(a)[:n].astype(np.float64) for a in zip(*out, strict=True))
    return LogLikelihood(values, errors, ess, n_samples, method, acceptance=acceptance)


@compiled(0, 3)
def _block(static: Static, arrays, key_data, n_samples: int, rows, extra):
    model, family, step = eqx.combine(arrays, static.tree)
    bound = Bound.make(model, family, ELBO(), Batch(rows, None))
    return step(jr.wrap_key_data(key_data), bound, n_samples, *([] if extra is None else [extra]))


def weighed(key: Array, n: int, n_rows: int, log_weights: Callable) -> tuple[Array, Array, Array]:
    """`log_weights(keys (k, n_rows)) -> (k, n_rows)` in rounds of at most `CELLS[1]` draws, n draws in all."""
    rounds = -(-n // CELLS[1])
    k = -(-n // rounds)

    def one(sums: Weights, i: Array) -> tuple[Weights, None]:
        log_w = log_weights(jr.split(jr.fold_in(key, i), (k, n_rows)))
        spare = i * k + jnp.arange(k) >= n
        return sums.add(jnp.where(spare[:, None], -jnp.inf, log_w)), None

    return jax.lax.scan(one, Weights.none((n_rows,)), jnp.arange(rounds))[0].result(n)


def _from_q(key: Array, bound: Bound, n: int):
    def log_weights(keys):
        noise = bound.map(lambda m, q, x, k: q.noise(k), keys)
        return bound.draw_and_log_weight(noise)[1]

    out = weighed(key, n, bound.plate[0], log_weights)
    return *out, jnp.full(bound.plate, jnp.nan)


def _around_chains(key: Array, bound: Bound, n: int, *, n_chains: int, n_burn_in: int, n_keep: int, n_leapfrog: int):
    layout = Layout(bound.model.latents)
    k1, k2 = jr.split(key)

    def run(model, q, x, key):
        """Sums of one chain's kept positions and of their squares."""
        log_p = lambda u: model.log_density(layout.unravel(u), x)
        k0, key = jr.split(key)
        begin = at(log_p, layout.ravel(q.latent(q.sample(k0))))

        def one(carry, i):
            here, log_step, sums = carry
            k1, k2 = jr.split(jr.fold_in(key, i))
            momentum, uniform = jr.normal(k1, here.u.shape, here.u.dtype), jr.uniform(k2, (), here.u.dtype)
            here, rate = leap(log_p, here, momentum, uniform, jnp.exp(log_step), n_leapfrog)
            kept = i >= n_burn_in
            log_step = jnp.where(kept, log_step, adapted(log_step, rate, TARGET, GAIN))
            more = (here.u, here.u**2, rate)
            return (here, log_step, jax.tree.map(lambda s, a: s + kept * a, sums, more)), None

        zero = jnp.zeros(layout.size, begin.u.dtype)
        start = begin, jnp.asarray(math.log(STEP_SIZE), zero.dtype), (zero, zero, jnp.zeros((), zero.dtype))
        return jax.tree.map(lambda a: a / n_keep, jax.lax.scan(one, start, jnp.arange(n_burn_in + n_keep))[0][2])

    mean, square, rate = jax.tree.map(lambda a: a.mean(0), bound.map(run, jr.split(k1, (n_chains, *bound.plate))))
    sd = WIDER * jnp.sqrt(jnp.maximum(square - mean**2, FLOOR**2))

    def log_weights(keys):
        def cell(model, q, x, e, mean, sd):
            z = layout.unravel(mean + sd * e)
            return model.log_density(z, x) - log_normal_from_noise(e, jnp.log(sd))

        k = keys.shape[0]
        eps = bound.map(lambda m, q, x, key: jr.normal(key, (layout.size,), mean.dtype), keys)
        wide = lambda a: jnp.broadcast_to(a[None], (k, *a.shape))
        return bound.map(cell, eps, wide(mean), wide(sd))

    return *weighed(k2, n, bound.plate[0], log_weights), rate
