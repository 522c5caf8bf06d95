"""Hidden Markov models, with any components as emissions."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int

from ..errors import OptionError, check_count, explain
from ..tree import replaced
from .chains import expected, lengths_of, log_partition, normalised, safe_log, unseen, viterbi
from .components import CHUNK, AbstractComponents, Bernoulli, Categorical, Poisson
from .em import AbstractEM
from .gaussian_components import Gaussians
from .mixtures import divided

EMISSIONS = {"gaussian": Gaussians, "bernoulli": Bernoulli, "poisson": Poisson, "categorical": Categorical}
STAY = 0.8  # probability of staying, at the start of EM


class MarkovParams(NamedTuple):
    """initial (K,), transitions (K, K) from row to column, components: parameters of the emissions."""

    initial: Array
    transitions: Array
    components: Any


class HiddenMarkov(AbstractEM):
    """Hidden Markov model: s_1 ~ initial, s_t | s_t-1 ~ transitions, x_t | s_t from component s_t. EM is Baum-Welch.

    Arguments:  n_states: K.   emission: "gaussian", "bernoulli", "poisson", "categorical", or components with options of
                their own, such as `Gaussians("diag")` of `jensen.models.gaussian_components`.
                pseudo: pseudo-counts of every transition and first state (a Dirichlet(1 + pseudo) prior).
    Data:       (n, T, d), or a list of (T_i, d). NaN entries, and whole steps of NaN, are missing and integrated out;
                a sequence ends at its last step that holds a value.
    Cost:       T K^2 for each sequence and the emissions', an iteration; in log space.
    Reference:  Baum et al. (1970); Rabiner (1989).  [baum1970maximization; rabiner1989tutorial]
    """

    n_states: int = eqx.field(static=True)
    components: AbstractComponents
    pseudo: float = eqx.field(static=True)
    partial: bool = eqx.field(static=True)

    def __init__(self, n_states: int, emission: str | AbstractComponents = "gaussian", *, pseudo: float = 0.0,
                 partial: bool = False):  # fmt: skip
        check_count("n_states", n_states)
        if isinstance(emission, str) and emission not in EMISSIONS:
            asked, because = f"emission={emission!r}", "it is looked up by name"
            raise OptionError(explain(asked, "there is no such emission", because, f"one of {list(EMISSIONS)}"))
        if not pseudo >= 0:
            because = "pseudo-counts are counts"
            raise OptionError(explain(f"pseudo={pseudo!r}", "it is negative", because, "pseudo=0.0 or more"))
        self.n_states, self.pseudo, self.partial = n_states, pseudo, partial
        self.components = EMISSIONS[emission]() if isinstance(emission, str) else emission

    @property
    def ndim(self) -> int:
        return 3

    @property
    def least_rows(self) -> int:
        return self.n_states

    @property
    def several_optima(self) -> bool:
        return self.n_states > 1 or self.components.several_optima

    @property
    def may_fall(self) -> str:
        return self.components.may_fall

    def bound_to(self, rows: np.ndarray) -> "HiddenMarkov":
        steps = rows.reshape(-1, rows.shape[2])
        steps = steps[~np.isnan(steps).all(1)]
        components, partial = self.components.bound_to(steps), bool(np.isnan(steps).any())
        return replaced(self, components=components, partial=partial)

    def chunk(self, shape):
        return max(1, min(CHUNK, self.components.chunk(shape[2], self.n_states)) // shape[1])

    def collapsed(self, rows, weights):
        return None

    def start(self, key, rows, random):
        k = self.n_states
        steps = rows.reshape(-1, rows.shape[2])
        shares = divided(key, steps, k, random)
        even = jnp.full(k, 1 / k, rows.dtype)
        stay = STAY * jnp.eye(k, dtype=rows.dtype) + (1 - STAY) / k
        return MarkovParams(even, stay, self.components.start(jr.fold_in(key, 1), steps, shares))

    def _log_b(self, params, rows) -> tuple[Array, Array, Array, Any, Array]:
        """(log p(x_t | s), lengths, which steps hold values, what the components know, the steps in one axis)."""
        lengths, present = lengths_of(rows)
        steps = rows.reshape(-1, rows.shape[2])
        if not self.partial:
            steps = jnp.where(present.reshape(-1, 1), steps, 0.0)
        log_b, known = self.components.evaluate(params.components, steps)
        log_b = jnp.where(present[..., None], log_b.reshape(*present.shape, -1), 0.0)
        return log_b, lengths, present, known, steps

    def _logs(self, params) -> tuple[Array, Array]:
        return safe_log(params.initial)[None], safe_log(params.transitions)[None]

    def e_step(self, params, rows, weights):
        log_b, lengths, present, known, steps = self._log_b(params, rows)
        over = jax.vmap(expected, in_axes=(None, None, 0, 0))
        log_z, (first, moves, states) = over(*self._logs(params), log_b, lengths)
        shares = states * (weights[:, None] * present)[..., None]
        counts = (jnp.einsum("n,nk->k", weights, first[:, 0]), jnp.einsum("n,nij->ij", weights, moves[:, 0]))
        shares = shares.reshape(len(steps), -1)
        return weights @ log_z, (counts, self.components.statistics(params.components, steps, known, shares))

    def m_step(self, params, statistics):
        (first, moves), rest = statistics
        initial = normalised(first + self.pseudo, params.initial)
        transitions = normalised(moves + self.pseudo, params.transitions)
        return MarkovParams(initial, transitions, self.components.m_step(params.components, rest))

    def rebased(self, statistics, old, new):
        counts, rest = statistics
        return counts, self.components.rebased(rest, old.components, new.components)

    def log_prior(self, params):
        logs = sum(a.sum() for a in self._logs(params)) if self.pseudo else 0.0
        return self.pseudo * logs + self.components.log_prior(params.components)

    def n_parameters(self, params):
        k = self.n_states
        return (k - 1) * (k + 1) + self.components.n_parameters(params.components)

    def faults(self, params):
        return self.components.faults(params.components, np.full(self.n_states, 1 / self.n_states))

    def uninformed(self, params, statistics):
        counts, rest = statistics
        return unseen(*counts, self.pseudo > 0) + self.components.uninformed(rest, "State")

    def log_prob(self, params, rows) -> Float[Array, " n"]:
        log_b, lengths, *_ = self._log_b(params, rows)
        return jax.vmap(log_partition, in_axes=(None, None, 0, 0))(*self._logs(params), log_b, lengths)

    def posterior(self, params, rows, lengths=None) -> Float[Array, "n T K"]:
        """P(s_t | x): 0 after the end of a sequence. lengths: steps of each; None: up to the last that holds a value."""
        log_b, known, *_ = self._log_b(params, rows)
        over = jax.vmap(expected, in_axes=(None, None, 0, 0))
        return over(*self._logs(params), log_b, known if lengths is None else lengths)[1][2]

    def viterbi(self, params, rows, lengths=None) -> Int[Array, "n T"]:
        """The most probable path of each sequence; -1 after its end. lengths: as of `posterior`."""
        log_b, known, *_ = self._log_b(params, rows)
        initial, transitions = self._logs(params)
        over = jax.vmap(viterbi, in_axes=(None, None, 0, 0))
        return over(initial[0], transitions[0], log_b, known if lengths is None else lengths)

    def imputed(self, params, rows, lengths=None) -> Float[Array, "n T d"]:
        """E[x_t | the whole sequence] where it is NaN (of categories the most probable); what is seen stays, and NaN after
        the end of a sequence. lengths: as of `posterior`."""
        shares = self.posterior(params, rows, lengths)
        filled = self.components.filled(params.components, *(a.reshape(-1, a.shape[-1]) for a in (rows, shares)))
        return jnp.where(shares.sum(-1, keepdims=True) > 0, filled.reshape(rows.shape), jnp.nan)

    def sample(self, params, key, n):
        """One sequence of n steps: (rows (n, d), states (n,))."""
        initial, transitions = self._logs(params)
        first_key, path_key, row_key = jr.split(key, 3)
        first = jr.categorical(first_key, initial[0])

        def step(state, key):
            new = jr.categorical(key, transitions[0, state])
            return new, new

        _, rest = jax.lax.scan(step, first, jr.split(path_key, n - 1))
        states = jnp.concatenate([first[None], rest])
        return self.components.sample(params.components, row_key, states), states
