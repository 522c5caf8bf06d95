"""Differential equations: by NumPyro's solver of choice, by a fixed step in a loop, or solved by hand."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint

from benchmarks.posteriors.priced.base import add, single


def runge_kutta(field: Callable, start, times, *args, substeps: int):
    """The states at `times`, the first of which is that of `start`: `substeps` steps of order four between any two."""
    start, times = (jnp.asarray(a, jnp.result_type(float)) for a in (start, times))

    def between(state, ends):
        t, h = ends[0], (ends[1] - ends[0]) / substeps

        def step(carry, _):
            state, t = carry
            k1 = field(state, t, *args)
            k2 = field(state + 0.5 * h * k1, t + 0.5 * h, *args)
            k3 = field(state + 0.5 * h * k2, t + 0.5 * h, *args)
            k4 = field(state + h * k3, t + h, *args)
            return (state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), t + h), None

        state = jax.lax.scan(step, (state, t), None, length=substeps)[0][0]
        return state, state

    states = jax.lax.scan(between, start, jnp.stack([times[:-1], times[1:]], axis=1))[1]
    return jnp.concatenate([start[None], states])


# ---- predators and prey ----------------------------------------------------------------------------------------------
def predation(state, t, rates):
    """Of prey and predators (Lotka and Volterra)."""
    prey, predators = state
    alpha, beta, gamma, delta = rates
    return jnp.stack([(alpha - beta * predators) * prey, (delta * prey - gamma) * predators])


def lotka_volterra(times, y, *, solve: Callable):
    """As in NumPyro's examples: populations at the start, four rates, and the noise of each population's logarithm."""
    start = numpyro.sample("start", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]))
    rates = dist.TruncatedNormal(jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.2, 0.02, 0.2, 0.02]), low=0.0)
    states = solve(predation, start, jnp.asarray(times, start.dtype), numpyro.sample("rates", rates))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]))
    numpyro.sample("y", dist.LogNormal(jnp.log(jnp.maximum(states, 1e-6)), sigma), obs=y)


def _solved(field: Callable, start: np.ndarray, times: np.ndarray, *args) -> np.ndarray:
    """In double precision, outside of JAX."""
    from scipy.integrate import solve_ivp

    found = solve_ivp(
        lambda t, s: np.asarray(field(s, t, *args)), (times[0], times[-1]), start, "RK45", times, rtol=1e-6
    )
    return found.y.T


def _populations(rng):
    times = np.arange(21.0)
    states = _solved(predation, np.array([33.0, 5.0]), times, np.array([0.55, 0.028, 0.84, 0.026]))
    return single(times, states * np.exp(0.2 * rng.standard_normal(states.shape)))


_adaptive = functools.partial(odeint, rtol=1e-6, atol=1e-5, mxstep=1000)
_fixed = functools.partial(runge_kutta, substeps=10)
for _name, _solve in {"lotka_volterra_odeint": _adaptive, "lotka_volterra_steps": _fixed}.items():
    _model = functools.partial(lotka_volterra, solve=_solve)
    add(_name, _model, _populations, whiten=_model)


# ---- an epidemic -----------------------------------------------------------------------------------------------------
def contagion(state, t, rates):
    """Of the susceptible, the infected, and those ever infected, as shares."""
    susceptible, infected, _ = state
    new = rates[0] * susceptible * infected
    return jnp.stack([-new, new - rates[1] * infected, new])


def epidemic(days, y, *, people: int):
    """Daily new cases, a share of which is seen, with more spread than a Poisson's."""
    rates = numpyro.sample("rates", dist.LogNormal(jnp.log(jnp.array([0.4, 0.2])), 0.5).to_event(1))
    first = numpyro.sample("first", dist.LogNormal(jnp.log(1e-3), 1.0))
    seen = numpyro.sample("seen", dist.Beta(5.0, 5.0))
    concentration = numpyro.sample("concentration", dist.HalfNormal(50.0))
    states = runge_kutta(contagion, jnp.stack([1.0 - first, first, first]), days, rates, substeps=4)
    cases = seen * people * jnp.maximum(jnp.diff(states[:, 2]), 1e-9)
    with numpyro.plate("days", y.shape[0]):
        numpyro.sample("y", dist.NegativeBinomial2(cases, concentration), obs=y)


def _cases(rng):
    days = np.arange(61.0)
    states = _solved(contagion, np.array([0.998, 0.002, 0.002]), days, np.array([0.35, 0.15]))
    return single(days, rng.poisson(0.4 * 10_000 * np.diff(states[:, 2]) * rng.gamma(20.0, 1 / 20, 60)))


_epidemic = functools.partial(epidemic, people=10_000)
add(
    "epidemic_60_days",
    _epidemic,
    _cases,
    whiten=_epidemic,
    n_warmup=500,
    n_chunk=5000,
    target_accept=0.95,
    dense_mass=True,
)


# ---- a drug, taken by mouth ------------------------------------------------------------------------------------------
def absorption(state, t, ka, ke):
    """Amounts in the gut and in the blood."""
    gut, blood = state[..., 0], state[..., 1]
    return jnp.stack([-ka * gut, ka * gut - ke * blood], axis=-1)


def by_formula(dose, times, ka, ke):
    """Amounts in the blood, of all subjects."""
    ka, ke = ka[:, None], ke[:, None]
    return dose[:, None] * ka / (ka - ke) * (jnp.exp(-ke * times) - jnp.exp(-ka * times))


def by_steps(dose, times, ka, ke):
    """The same by steps from time zero."""
    start = jnp.stack([dose, jnp.zeros_like(dose)], axis=-1)
    states = runge_kutta(absorption, start, jnp.concatenate([jnp.zeros(1), times]), ka, ke, substeps=20)
    return states[1:, :, 1].T


def one_compartment(dose, times, y, *, amounts: Callable):
    """Clearance, volume, and what absorption is above elimination, of each subject about all, on the logarithm."""
    centre = jnp.log(jnp.array([1.0, 3.0, 30.0]))
    mean = numpyro.sample("mean", dist.Normal(centre, 0.5).to_event(1))
    spread = numpyro.sample("spread", dist.HalfNormal(0.5).expand([3]).to_event(1))
    with numpyro.plate("subjects", dose.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    above, clearance, volume = jnp.exp(mean + spread * z).T
    ke = clearance / volume
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    level = amounts(dose, times, ke + above, ke) / volume[:, None]
    numpyro.sample("y", dist.LogNormal(jnp.log(jnp.maximum(level, 1e-9)), sigma).to_event(2), obs=y)


def _levels(rng):
    dose, times = rng.choice([100.0, 200.0, 300.0], 20), np.array([0.5, 1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 24.0])
    above, clearance, volume = np.exp(
        np.log([1.2, 2.5, 35.0]) + np.array([0.4, 0.3, 0.2]) * rng.standard_normal((20, 3))
    ).T
    level = np.asarray(by_formula(dose, times, above + clearance / volume, clearance / volume)) / volume[:, None]
    return single(dose, times, level * np.exp(0.15 * rng.standard_normal(level.shape)))


for _name, _amounts in {"drug_by_formula": by_formula, "drug_by_steps": by_steps}.items():
    _model = functools.partial(one_compartment, amounts=_amounts)
    add(_name, _model, _levels, whiten=_model, n_warmup=400, target_accept=0.85)


# ---- an enzyme -------------------------------------------------------------------------------------------------------
def consumption(substrate, t, fastest, half):
    """Michaelis and Menten's."""
    return -fastest * substrate / (half + substrate)


def michaelis_menten(times, start, y):
    """Substrate left in assays that start from known amounts, side by side."""
    fastest = numpyro.sample("fastest", dist.LogNormal(0.0, 1.0))
    half = numpyro.sample("half", dist.LogNormal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    left = runge_kutta(consumption, start, times, fastest, half, substeps=10)
    numpyro.sample("y", dist.Normal(left[1:], sigma).to_event(2), obs=y)


def _assays(rng):
    times, start = np.linspace(0.0, 10.0, 26), np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    left = _solved(consumption, start, times, 0.9, 1.7)
    return single(times, start, left[1:] + 0.08 * rng.standard_normal((25, 5)))


add("michaelis_menten", michaelis_menten, _assays, whiten=michaelis_menten)
