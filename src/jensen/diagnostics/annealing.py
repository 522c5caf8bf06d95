"""Annealed importance sampling of log p(x) of each row, and run backwards from exact posterior draws, its upper bound."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ..compiled import key_for
from ..errors import IncompatibleComposition, ModelError, OptionError, explain
from ..facts import Fact
from ..families.base import AbstractFamily
from ..gradients.base import Bound
from ..hamiltonian import adapted, at, leap
from ..models.base import AbstractModel, like_rows
from ..tree import Layout
from .likelihood import LogLikelihood, counts, needs_gradients, over_rows, weighed, with_density

if TYPE_CHECKING:
    from ..fit.result import Fit

N_TEMPERATURES, LEAPFROG, N_SAMPLES = 200, 5, 16
PILOTS, STEP_SIZE, TARGET, GAIN = 4, 0.1, 0.65, 0.2  # chains of a row that find the step sizes; start, acceptance, gain
SPREAD = 4.0  # temperatures are sigmoids of even steps from -SPREAD to SPREAD: dense at both ends
STARTS = "q", "prior"


def schedule(n: int) -> Float[np.ndarray, " T+1"]:
    """n + 1 temperatures from 0 to 1."""
    s = 1 / (1 + np.exp(-np.linspace(-SPREAD, SPREAD, n + 1)))
    return (s - s[0]) / (s[-1] - s[0])


def annealed(
    model: AbstractModel,
    family: AbstractFamily,
    rows: Any,
    n_samples: int,
    seed: int,
    *,
    start: str = "q",
    **options: int,
) -> LogLikelihood:
    """AIS with the densities r^(1 - b) p(x, z)^b, b from 0 to 1, r = q(z | x) or the prior.

    A pilot run with a few chains finds a step size for each row and temperature; the run itself keeps them, so that each
    weight is unbiased for p(x).   Reference:  Neal (2001); Wu, Burda, Salakhutdinov and Grosse (2017).  [neal2001annealed]
    """
    options = _checked(model, family, start, options)
    step = functools.partial(_forward, start=start, **options)
    return over_rows(step, model, family, rows, n_samples, seed, "ais")


def bracket(
    fit: "Fit", n_rows: int = 100, n_samples: int = N_SAMPLES, seed: int = 0, *, start: str = "q", **options: int
) -> LogLikelihood:
    """Bidirectional Monte Carlo (BDMC): log p(x) of rows that the model itself draws, from below and from above.

    Definition: (z, x) ~ p: z is an exact draw of p(z | x). AIS from q gives log mean w below log p(x) on average; the same
                path backwards from z gives -log mean w' above it, E[w'] = 1 / p(x). The gap bounds the error of both, and
                tells how far `log_likelihood(method="ais")` can be trusted with these options on data like the model's.
    Arguments:  n_rows: simulated.   n_samples: chains a row, each way.   options: as for `log_likelihood(method="ais")`.
    Returns:    `LogLikelihood` with `upper`; ess and errors are those of the lower bounds.
    Raises:     ModelError, OptionError, IncompatibleComposition.
    Reference:  Grosse, Ghahramani and Adams (2015); Wu et al. (2017).  [grosse2015sandwiching]
    """
    model: Any = fit.model
    if model is None or not model.plated or Fact.GENERATIVE not in model.facts:
        wrong, because = "rows cannot be drawn from the model", "the upper bound starts at the latent that made a row"
        raise ModelError(explain("`bracket`", wrong, because, "LatentVariable(prior, decoder)"))
    needs_gradients(model, "`bracket`")
    if not isinstance(n_rows, int) or n_rows < 1:
        asked, because = f"bracket(n_rows={n_rows!r})", "it counts rows"
        raise OptionError(explain(asked, "not a positive whole number", because, "n_rows=100"))
    family = with_density(fit.family)
    z, x = jax.jit(jax.vmap(model.sample_joint))(jr.split(key_for(seed, "bracket"), n_rows))
    x = x if fit.rows is None else like_rows(x, fit.rows, "`bracket`")
    steps = _checked(model, family, start, options)
    lower = annealed(model, family, x, n_samples, seed, start=start, **options)
    upper = over_rows(
        functools.partial(_backward, start=start, **steps), model, family, x, n_samples, seed, "reverse ais", extra=z
    )
    return dataclasses.replace(lower, upper=-upper.values)


def _checked(model: AbstractModel, family: AbstractFamily, start: str, options: dict) -> dict[str, int]:
    if start not in STARTS:
        asked, because = f"start={start!r}", "it names the density that annealing starts from"
        raise OptionError(explain(asked, "there is no such start", because, f"one of {STARTS}"))
    if start == "q" and Fact.LOG_PROB not in family.facts:
        wrong, because = f"log q of a latent alone is not known for {type(family).__name__}", "it is raised to powers"
        raise IncompatibleComposition(explain('start="q"', wrong, because, 'start="prior"'))
    if start == "prior" and Fact.GENERATIVE not in model.facts:
        wrong, because = f"{type(model).__name__} has no prior of its own", "annealing starts from draws of it"
        raise IncompatibleComposition(explain('start="prior"', wrong, because, 'start="q"'))
    return counts("ais", options, {"n_temperatures": N_TEMPERATURES, "n_leapfrog": LEAPFROG})


class _Path:
    """The path of densities of one row, in flat coordinates."""

    def __init__(self, model: Any, q: Any, x: Any, start: str):
        self.model, self.q, self.x, self.prior = model, q, x, start == "prior"
        self.layout = Layout(model.latents)

    def first(self, key: Array) -> Array:
        """A draw of r."""
        z = self.model.sample_joint(key)[0] if self.prior else self.q.latent(self.q.sample(key))
        return self.layout.ravel(z)

    def gap(self, u: Array) -> Array:
        """log p(x, u) - log r(u): the derivative of the log density along the path."""
        z = self.layout.unravel(u)
        if self.prior:
            return self.model.log_likelihood(z, self.x)
        return self.model.log_density(z, self.x) - self.q.log_prob(z)

    def log_density(self, b: Array, u: Array) -> Array:
        z = self.layout.unravel(u)
        log_p = self.model.log_density(z, self.x)
        log_r = log_p - self.model.log_likelihood(z, self.x) if self.prior else self.q.log_prob(z)
        return (1 - b) * log_r + b * log_p

    def move(self, key: Array, b: Array, u: Array, log_step: Array, n_leapfrog: int) -> tuple[Array, Array]:
        """(where HMC at temperature b leads, probability of acceptance)."""
        k1, k2 = jr.split(key)
        momentum, uniform = jr.normal(k1, u.shape, u.dtype), jr.uniform(k2, (), u.dtype)
        log_density = functools.partial(self.log_density, b)
        here, rate = leap(log_density, at(log_density, u), momentum, uniform, jnp.exp(log_step), n_leapfrog)
        return here.u, rate


def _steps(key: Array, bound: Bound, start: str, n_temperatures: int, n_leapfrog: int) -> Float[Array, "B T"]:
    """Logarithms of the step sizes at which pilot chains accept as often as is sought."""
    betas = jnp.asarray(schedule(n_temperatures))

    def run(model, q, x, key):
        path = _Path(model, q, x, start)
        k0, key = jr.split(key)
        u = path.first(k0)

        def one(carry, inputs):
            u, log_step = carry
            b, i = inputs
            u, rate = path.move(jr.fold_in(key, i), b, u, log_step, n_leapfrog)
            return (u, adapted(log_step, rate, TARGET, GAIN)), log_step

        begin = u, jnp.asarray(math.log(STEP_SIZE), u.dtype)
        return jax.lax.scan(one, begin, (betas[1:].astype(u.dtype), jnp.arange(n_temperatures)))[1]

    return bound.map(run, jr.split(key, (PILOTS, *bound.plate))).mean(0)


def _forward(key: Array, bound: Bound, n: int, *, start: str, n_temperatures: int, n_leapfrog: int):
    k1, k2 = jr.split(key)
    steps, betas = _steps(k1, bound, start, n_temperatures, n_leapfrog), jnp.asarray(schedule(n_temperatures))

    def run(model, q, x, key, log_steps):
        path = _Path(model, q, x, start)
        k0, key = jr.split(key)
        u = path.first(k0)

        def one(carry, inputs):
            u, log_w = carry
            before, b, log_step, i = inputs
            log_w = log_w + (b - before) * path.gap(u)
            u, _ = path.move(jr.fold_in(key, i), b, u, log_step, n_leapfrog)
            return (u, log_w), None

        b = betas.astype(u.dtype)
        inputs = b[:-1], b[1:], log_steps, jnp.arange(n_temperatures)
        return jax.lax.scan(one, (u, jnp.zeros((), u.dtype)), inputs)[0][1]

    def log_weights(keys):
        return bound.map(run, keys, jnp.broadcast_to(steps[None], (keys.shape[0], *steps.shape)))

    return *weighed(k2, n, bound.plate[0], log_weights), jnp.full(bound.plate, jnp.nan)


def _backward(key: Array, bound: Bound, n: int, z: Any, *, start: str, n_temperatures: int, n_leapfrog: int):
    """Weights whose mean is 1 / p(x), from the latents z that made the rows."""
    k1, k2 = jr.split(key)
    steps, betas = _steps(k1, bound, start, n_temperatures, n_leapfrog), jnp.asarray(schedule(n_temperatures))

    def run(model, q, x, key, log_steps, z):
        path = _Path(model, q, x, start)
        u = path.layout.ravel(z)

        def one(carry, inputs):
            u, log_w = carry
            before, b, log_step, i = inputs
            u, _ = path.move(jr.fold_in(key, i), b, u, log_step, n_leapfrog)
            return (u, log_w - (b - before) * path.gap(u)), None

        b = betas.astype(u.dtype)
        inputs = b[:-1], b[1:], log_steps, jnp.arange(n_temperatures)
        return jax.lax.scan(one, (u, jnp.zeros((), u.dtype)), inputs, reverse=True)[0][1]

    def log_weights(keys):
        wide = lambda a: jnp.broadcast_to(a[None], (keys.shape[0], *a.shape))
        return bound.map(run, keys, wide(steps), jax.tree.map(wide, z))

    return *weighed(k2, n, bound.plate[0], log_weights), jnp.full(bound.plate, jnp.nan)
