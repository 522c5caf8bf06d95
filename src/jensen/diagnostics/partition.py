"""The partition function of a Boltzmann machine: exact where it is small, else by annealed importance sampling."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ..algorithms.contrastive_divergence import independent
from ..compiled import compiled, key_for
from ..errors import OptionError, explain
from ..function import Static
from ..models.annealed import AnnealedPath
from ..models.boltzmann import MOST_STATES, AbstractBoltzmann, Half
from .evidence import importance

METHODS = "auto", "exact", "ais", "reverse"
STRETCHES = (0.0, 0.5, 500), (0.5, 0.9, 4000), (0.9, 1.0, 10_000)
N_TEMPERATURES = sum(n for *_, n in STRETCHES)
BLOCK = 2**14  # states of an enumeration at once


@dataclasses.dataclass(frozen=True)
class LogPartition:
    """log Z of a machine, nats.

    lower, upper: ends of the central interval of mass `prob` (of an exact one: the value).   se: standard error.
    method: "exact" | "ais" (below log Z on average) | "reverse" (above, from exact samples of the machine).
    ess:    effective share of the chains.   khat: Pareto k-hat of their weights.   log_weights: (chains,), each an
            unbiased estimate of Z ("reverse": of 1 / Z, negated).   particles: the chains' last states, the halves (even, odd).
    """

    estimate: float
    lower: float
    upper: float
    prob: float
    se: float
    method: str
    ess: float = 1.0
    khat: float = -math.inf
    n_chains: int = 0
    n_temperatures: int = 0
    log_weights: np.ndarray | None = None
    particles: Any = None

    def __repr__(self) -> str:
        if self.method == "exact":
            return f"log Z {self.estimate:.4f} (exact)"
        span = f"{self.prob:.0%} interval {self.lower:.3f} to {self.upper:.3f}"
        work = f"{self.n_chains:,} chains of {self.n_temperatures:,} temperatures, ess {self.ess:.0%}"
        return f"log Z {self.estimate:.3f} ({span}) by {self.method}: {work}"


def log_partition(
    machine: AbstractBoltzmann,
    method: str = "auto",
    *,
    n_chains: int = 100,
    temperatures: int | np.ndarray | None = None,
    mean: Any = None,
    samples: Half | None = None,
    prob: float = 0.95,
    seed: int = 0,
) -> LogPartition:
    """log Z of a Boltzmann machine, with an interval.

    Definition: exact: log sum of exp(-E), one half of the layers enumerated, the other summed in closed form.
                ais: w = Z_0 prod_k f_k(x_{k-1}) / f_{k-1}(x_{k-1}), x_k from a Gibbs sweep at beta_k; E[w] = Z. Of an RBM x is
                the visible layer, the hidden one summed; of a DBM the odd layers, the even ones summed.
                reverse: the same chains from samples of the machine downwards, E[1 / w] = 1 / Z: log Z from above.
    Arguments:  method: "auto" is exact up to 2^20 states of the smaller half, else ais.   n_chains: chains, at once.
                temperatures: beta_0 = 0, ..., 1 rising, or how many (spaced as the default); None: 14,500 of which 500 in
                    [0, .5], 4,000 in [.5, .9], 10,000 in [.9, 1].
                mean: of the data's columns, the base-rate model; None: the machine's visible biases without its links.
                samples: (reverse) rows of the kept half from the machine: exact draws, or persistent particles, for
                    which the bound holds as far as these have mixed.
                prob: mass of the interval, by the Bayesian bootstrap of the weights with a Pareto tail.
    Returns:    `LogPartition`.
    Raises:     OptionError for an unknown method, too many states, a schedule that is none, missing samples.
    Cost:       ais: 2 products (n_chains, even) x (odd) a temperature.
    Reference:  Neal (2001); Salakhutdinov and Murray (2008), RBM and schedule; Salakhutdinov and Hinton (2009), DBM;
                Burda, Grosse and Salakhutdinov (2015), reverse.  [salakhutdinov2008quantitative]
    """
    check_method(method, prob, n_chains)
    half = min((0, 1), key=machine.n_states)
    n = machine.n_states(half)
    if method == "exact" and n > MOST_STATES:
        asked, wrong = "log_partition(method='exact')", f"the smaller half of the layers has {_many(n)} joint states"
        raise OptionError(explain(asked, wrong, f"at most {MOST_STATES:,} are enumerated", 'method="ais"'))
    if method == "exact" or (method == "auto" and n <= MOST_STATES):
        value = enumerated(machine, half)
        return LogPartition(value, value, value, prob, 0.0, "exact")
    if method == "reverse" and samples is None:
        because = "the chains start from the machine's own distribution"
        instead = "samples=fit.particles, or exact draws of a small machine"
        raise OptionError(explain("log_partition(method='reverse')", "no samples are given", because, instead))
    betas, path, key = schedule(temperatures), path_of(machine, mean), jr.key_data(key_for(seed, "ais"))
    if method == "reverse":
        log_w, particles = _down(*_split(path), betas, key, tuple(map(jnp.asarray, samples or ())))
        return _weighed(-np.asarray(log_w, np.float64), "reverse", prob, seed, betas, particles)
    log_w, particles = _up(*_split(path), betas, key, n_chains)
    return _weighed(np.asarray(log_w, np.float64), "ais", prob, seed, betas, particles)


def log_prob_by_annealing(
    machine: AbstractBoltzmann,
    x: Float[np.ndarray, "n v"],
    *,
    n_chains: int = 50,
    temperatures: int | np.ndarray | None = None,
    mean: Any = None,
    seed: int = 0,
) -> Float[np.ndarray, " n"]:
    """log p(x) of rows under an RBM without log Z: the reverse AIS estimator (RAISE), nats; below log p_ann(x) on average,
    p_ann the distribution that a forward annealing chain ends in, which tends to p with the number of temperatures.

    Cost:       n_chains chains a row: 2 products of (n n_chains) rows a temperature.
    Reference:  Burda, Grosse and Salakhutdinov (2015), "Accurate and conservative estimates", equation 10.  [burda2015raise]
    """
    if len(machine.units) > 2:
        asked, wrong = "`log_prob_by_annealing` of a deep machine", "its chains do not run over visible rows"
        raise OptionError(explain(asked, wrong, "each row starts a chain", "log_partition, and the machine's bound"))
    path, betas = path_of(machine, mean), schedule(temperatures)
    rows = jnp.asarray(np.repeat(np.asarray(x), n_chains, 0), machine.biases[0].dtype)
    log_w, _ = _down(*_split(path), betas, jr.key_data(key_for(seed, "raise")), (rows,))
    log_p = np.asarray(machine.log_marginal((rows,), 0) - log_w, np.float64).reshape(len(x), n_chains)
    top = log_p.max(1)
    return top + np.log(np.exp(log_p - top[:, None]).mean(1))


def schedule(asked: int | np.ndarray | None = None) -> Float[np.ndarray, " K"]:
    """Inverse temperatures from 0 to 1: the default's, or as many as asked spaced alike, or those given, checked."""
    if asked is None or isinstance(asked, (int, np.integer)):
        n = N_TEMPERATURES if asked is None else int(asked)
        if n < 2:
            wrong, because = "there are fewer than two", "a path has two ends"
            raise OptionError(explain(f"temperatures={asked}", wrong, because, "temperatures=1000"))
        counts = np.cumsum([0, *(m for *_, m in STRETCHES)]) / N_TEMPERATURES
        return np.interp(np.linspace(0, 1, n), counts, [0.0, *(b for _, b, _ in STRETCHES)])
    betas = np.asarray(asked, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or (np.diff(betas) <= 0).any():
        wrong = "they do not rise from 0 to 1"
        raise OptionError(explain("the temperatures given", wrong, "a path has two ends", "np.linspace(0, 1, 1000)"))
    return betas


def path_of(machine: AbstractBoltzmann, mean: Any = None) -> AnnealedPath:
    """The path from the base-rate model of a data mean, or of the machine's own visible biases."""
    base = independent(machine)
    if mean is not None:
        base = (machine.units[0].bias_of(np.asarray(mean, np.float64)).astype(base[0].dtype), *base[1:])
    return AnnealedPath(machine, base)


def enumerated(machine: AbstractBoltzmann, half: int) -> float:
    """log Z by enumeration of a half, nats."""
    n, parts = int(machine.n_states(half)), []
    arrays, static = eqx.partition(machine, eqx.is_array)
    size = min(BLOCK, n)
    for at in range(0, n, size):
        index = np.arange(at, at + size)
        value = _marginal(Static(static), half, arrays, machine.all_states(half, index % n))
        parts.append(np.where(index < n, np.asarray(value, np.float64), -np.inf))
    log_f = np.concatenate(parts)
    return float(log_f.max() + np.log(np.exp(log_f - log_f.max()).sum()))


def check_method(method: str, prob: float, n_chains: int) -> None:
    if method not in METHODS:
        raise OptionError(explain(f"method={method!r}", "there is no such method", "it is a name", f"one of {METHODS}"))
    if not 0 < prob < 1:
        raise OptionError(
            explain(f"prob={prob}", "it is not between 0 and 1", "it is the interval's mass", "prob=0.95")
        )
    if not isinstance(n_chains, (int, np.integer)) or n_chains < 2:
        because = "their spread gives the interval"
        raise OptionError(explain(f"n_chains={n_chains!r}", "it is no count above 1", because, "n_chains=100"))


def _many(n: int | float) -> str:
    return f"about 2^{n.bit_length() - 1}" if isinstance(n, int) else "uncountably many"


def _weighed(log_w: np.ndarray, method: str, prob: float, seed: int, betas: np.ndarray, particles: Any) -> LogPartition:
    found = importance(log_w, np.zeros_like(log_w), prob, seed)
    w = np.exp(log_w - log_w.max())
    ess = float(w.sum() ** 2 / (w**2).sum() / len(w))
    value, lower, upper = found.log_evidence, found.lower, found.upper
    if method == "reverse":
        value, lower, upper = -value, -upper, -lower
    return LogPartition(
        value, lower, upper, prob, found.se, method, ess, found.khat, len(w), len(betas), log_w,
        jax.device_get(particles),
    )  # fmt: skip


def kept_half(machine: AbstractBoltzmann) -> int:
    """Over which half the chains run: an RBM's visible layer, where base rates are known; a DBM's odd layers, so that the
    visible layer and every second hidden one are summed."""
    return 0 if len(machine.units) == 2 else 1


def _split(path: AnnealedPath) -> tuple[Static, Any]:
    arrays, static = eqx.partition(path, eqx.is_array)
    return Static(static), arrays


def _rise(path: AnnealedPath, kept: Half, inputs: Half, half: int, low: Array, high: Array) -> Float[Array, " C"]:
    """log f_high - log f_low of rows: differences are taken unit by unit, so that no digits are lost."""
    m, zeros = path.machine, tuple(jnp.zeros_like(b) for b in path.base)
    change = tuple((high - low) * (b - b0) for b, b0 in zip(m.biases, path.base, strict=True))
    own = m.own(kept, half, change) - m.own(kept, half, zeros)  # the bases cancel
    other = m.half(1 - half)
    at = lambda beta: path.fields(inputs, 1 - half, beta)
    pairs = zip(other, at(high), at(low), strict=True)
    return own + sum((m.units[i].log_partition(a) - m.units[i].log_partition(b)).sum(-1) for i, a, b in pairs)


def _moved(path: AnnealedPath, key: Array, inputs: Half, half: int, beta: Array) -> tuple[Half, Half, Half]:
    """(kept, inputs of the others, the others) after a Gibbs sweep at beta."""
    k0, k1 = jr.split(key)
    other = path.draw(k0, inputs, 1 - half, beta)
    kept = path.draw(k1, path.machine.inputs(other, half), half, beta)
    return kept, path.machine.inputs(kept, 1 - half), other


def _added(total: Array, lost: Array, part: Array) -> tuple[Array, Array]:
    """Compensated summation: ten thousand small numbers added to a large one."""
    part = part - lost
    new = total + part
    return new, (new - total) - part


@compiled(0, 1)
def _marginal(static: Static, half: int, arrays: Any, states: Half) -> Array:
    machine: AbstractBoltzmann = eqx.combine(arrays, static.tree)
    return machine.log_marginal(states, half)


@compiled(0, 4, thorough=True)
def _up(static: Static, arrays: Any, betas: Array, key_data: Array, n_chains: int) -> tuple[Array, Any]:
    """(log w, last states) of chains from beta = 0 to 1."""
    path: AnnealedPath = eqx.combine(arrays, static.tree)
    m, half, key = path.machine, kept_half(path.machine), jr.wrap_key_data(key_data)
    betas = betas.astype(m.biases[0].dtype)
    k0, key = jr.split(key)
    fields = tuple(jnp.broadcast_to(path.base[i], (n_chains, m.units[i].size)) for i in m.half(half))
    kept = m.draw(k0, m.means_at(fields, half), half)

    def step(k: Array, c: Any) -> Any:
        kept, inputs, _, total, lost = c
        total, lost = _added(total, lost, _rise(path, kept, inputs, half, betas[k - 1], betas[k]))
        return *_moved(path, jr.fold_in(key, k), inputs, half, betas[k]), total, lost

    start = jnp.full(n_chains, path.log_base_partition(), betas.dtype)
    inputs = m.inputs(kept, 1 - half)
    blank = jax.tree.map(jnp.zeros_like, inputs)
    kept, _, other, total, lost = jax.lax.fori_loop(
        1, len(betas), step, (kept, inputs, blank, start, jnp.zeros_like(start))
    )
    return total - lost, (kept, other) if half == 0 else (other, kept)


@compiled(0, thorough=True)
def _down(static: Static, arrays: Any, betas: Array, key_data: Array, kept: Half) -> tuple[Array, Any]:
    """(log w, last states) of chains from given states at beta = 1 to 0; E[1 / w] = 1 / Z if they are the machine's."""
    path: AnnealedPath = eqx.combine(arrays, static.tree)
    m, half, key = path.machine, kept_half(path.machine), jr.wrap_key_data(key_data)
    betas = betas.astype(m.biases[0].dtype)
    kept = tuple(a.astype(betas.dtype) for a in kept)
    last = len(betas) - 1

    def step(i: Array, c: Any) -> Any:
        _, inputs, _, total, lost = c
        k = last - i
        kept, inputs, other = _moved(path, jr.fold_in(key, i), inputs, half, betas[k])
        total, lost = _added(total, lost, _rise(path, kept, inputs, half, betas[k - 1], betas[k]))
        return kept, inputs, other, total, lost

    start = jnp.full(len(kept[0]), path.log_base_partition(), betas.dtype)
    inputs = m.inputs(kept, 1 - half)
    blank = jax.tree.map(jnp.zeros_like, inputs)
    kept, _, other, total, lost = jax.lax.fori_loop(0, last, step, (kept, inputs, blank, start, jnp.zeros_like(start)))
    return total - lost, (kept, other) if half == 0 else (other, kept)
