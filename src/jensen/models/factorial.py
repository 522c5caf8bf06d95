"""Factorial hidden Markov models: several chains at once, with an exact and a structured variational E-step."""

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array

from ..errors import OptionError, check_count, explain
from .chains import expected, lengths_of, log_partition, normalised, safe_log, unseen
from .components import CHUNK
from .em import AbstractEM, column_moments
from .gaussian_components import LOG_2PI

MOST_EXACT = 4096  # joint states of an exact E-step


class FactorialParams(NamedTuple):
    """initial (M, K), transitions (M, K, K), means (M, K, d), covariance (d, d); variance (d,): of the columns, fixed."""

    initial: Array
    transitions: Array
    means: Array
    covariance: Array
    variance: Array


class FactorialHMM(AbstractEM):
    """Factorial hidden Markov model: M independent chains; x_t ~ N(sum_m means[m, s_t^m], covariance).

    Definition: e_step="exact": forward recursion over the K^M joint states, moving one chain at a time.
                "structured": q = prod_m q_m(s^m), each a chain with its own log-likelihoods h^m; coordinate ascent on F
                    log h_t^m = W_m C^-1 (x_t - sum_l!=m E[W_l s_t^l]) - 1/2 diag(W_m C^-1 W_m').
                A bound on the log-likelihood is then what rises; the sweeps start anew at each iteration.
    Arguments:  n_chains: M.   n_states: K of each.   n_sweeps: over the chains, in a structured E-step.
                floor: least variance, as a share of the column's.
    Data:       as `HiddenMarkov`: what is missing is integrated out.
    Cost:       exact T M K^(M + 1); structured n_sweeps T M K^2; with missing values d^3 a step more.
    Raises:     OptionError for an exact E-step with more than 4,096 joint states.
    Reference:  Ghahramani and Jordan (1997), eqs. 12 to 15 and appendix.  [ghahramani1997factorial]
    """

    n_chains: int = eqx.field(static=True)
    n_states: int = eqx.field(static=True, default=2)
    inference: str = eqx.field(static=True, default="exact")
    n_sweeps: int = eqx.field(static=True, default=10)
    floor: float = eqx.field(static=True, default=1e-6)
    missing: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        for name in ("n_chains", "n_states", "n_sweeps"):
            check_count(name, getattr(self, name))
        if self.inference not in ("exact", "structured"):
            because, instead = "there are two", 'inference="exact" or "structured"'
            raise OptionError(explain(f"inference={self.inference!r}", "there is no such E-step", because, instead))
        if self.inference == "exact" and self.n_states**self.n_chains > MOST_EXACT:
            asked = f"an exact E-step over {self.n_states}^{self.n_chains} joint states"
            because = "time and memory grow with their number"
            raise OptionError(explain(asked, f"there are more than {MOST_EXACT}", because, 'inference="structured"'))

    @property
    def ndim(self) -> int:
        return 3

    @property
    def least_rows(self) -> int:
        return self.n_states

    @property
    def several_optima(self) -> bool:
        return True

    @property
    def may_fall(self) -> str:
        return "" if self.inference == "exact" else "the sweeps of the E-step start anew, and may end elsewhere"

    def bound_to(self, rows: np.ndarray) -> "FactorialHMM":
        gone = np.isnan(rows)
        return self._with_missing(bool((gone & ~_ended(gone)[..., None]).any()))

    def _with_missing(self, missing: bool = True) -> "FactorialHMM":
        return FactorialHMM(self.n_chains, self.n_states, self.inference, self.n_sweeps, self.floor, missing)

    def chunk(self, shape):
        return max(1, CHUNK // shape[1] // max(1, self.n_states**self.n_chains // 64 if self._exact else 1))

    @property
    def _exact(self) -> bool:
        return self.inference == "exact"

    def collapsed(self, rows, weights):
        return None

    def start(self, key, rows, random):
        m, k = self.n_chains, self.n_states
        steps = rows.reshape(-1, rows.shape[2])
        center, variance, _ = column_moments(steps)
        noise = jr.normal(key, (m, k, len(center)), rows.dtype) * jnp.sqrt(variance / m)
        even = jnp.full((m, k), 1 / k, rows.dtype)
        stay = jnp.broadcast_to(0.8 * jnp.eye(k, dtype=rows.dtype) + 0.2 / k, (m, k, k))
        return FactorialParams(even, stay, center / m + noise, jnp.diag(variance), variance)

    # ---- E-step -----------------------------------------------------------------------------------------------
    def e_step(self, params, rows, weights):
        log_z, (first, moves, single, pairs) = self._chains(params, rows, lengths_of(rows)[0])
        there = lengths_of(rows)[1] if self.missing else _there(rows)
        m, k, d = params.means.shape
        shared = weights[:, None] * there
        single = single.reshape(*there.shape, m * k)
        counts = jnp.einsum("n,nmk->mk", weights, first), jnp.einsum("n,nmij->mij", weights, moves)
        both = jnp.einsum("nt,ntab->ab", shared, pairs)
        if not self.missing:
            x = jnp.where(there[..., None], rows, 0.0)
            cross = (single * shared[..., None]).reshape(-1, m * k).T @ x.reshape(-1, d)
            second = jnp.einsum("nt,nti,ntj->ij", shared, x, x)
            return weights @ log_z, (counts, cross, both, second, shared.sum())
        # x given what is seen of it and the states: G x + (I - G) W's, and Cov = C - G C
        w = params.means.reshape(m * k, d)
        seen, gain, rest = self._regression(params, rows)
        own = jnp.einsum("ntij,ntab,bj->ntai", rest, pairs, w)  # E[s_a (I - G) W's]
        cross = jnp.einsum("nt,ntai->ai", shared, single[..., None] * seen[..., None, :] + own)
        mean = jnp.einsum("ntij,nta,aj->nti", rest, single, w)
        quad = jnp.einsum("ntij,aj,ntab,bk,ntlk->ntil", rest, w, pairs, w, rest)
        mixed = seen[..., :, None] * mean[..., None, :]
        left = params.covariance - gain @ params.covariance
        each = seen[..., :, None] * seen[..., None, :] + mixed + jnp.swapaxes(mixed, -1, -2) + quad + left
        return weights @ log_z, (counts, cross, both, jnp.einsum("nt,ntij->ij", shared, each), shared.sum())

    def _regression(self, params, rows) -> tuple[Array, Array, Array]:
        """(G x, G, I - G): E[x | what is seen, states] = G x + (I - G) W's, over any leading axes."""
        mask = ~jnp.isnan(rows)
        _, precision = _observed(params.covariance, mask)
        gain = params.covariance @ precision
        seen = jnp.where(mask, rows, 0.0)
        return jnp.einsum("...ij,...j->...i", gain, seen), gain, jnp.eye(rows.shape[-1], dtype=rows.dtype) - gain

    def _chains(self, params, rows, lengths):
        """(log Z or the bound (n,), (first states, transitions, E[s] (n, T, M, K), E[s s'] (n, T, M K, M K)))."""
        one = self._exact_one if self._exact else self._structured_one
        return jax.vmap(lambda x, length: one(params, x, length))(rows, lengths)

    def _logs(self, params):
        return safe_log(params.initial), safe_log(params.transitions)

    def _indicators(self, dtype) -> Array:
        """(K^M, M K): which state each chain is in, in each joint state."""
        k = self.n_states
        joint = np.array(list(itertools.product(range(k), repeat=self.n_chains)))
        return jnp.asarray(np.eye(k)[joint].reshape(len(joint), -1), dtype)

    def _white(self, params, x) -> tuple[Array, Array, Array]:
        """(x with 0 where NaN, L^-1 of what is seen of each step (T or 1, d, d), log |2 pi C| of it (T or 1,))."""
        mask = ~jnp.isnan(x) if self.missing else jnp.ones((1, x.shape[1]), bool)
        inverse, _ = _observed(params.covariance, mask)
        inverse = inverse * mask[:, :, None]  # 0 where nothing is seen: no distance
        log_det = -2 * jnp.log(jnp.where(mask, jnp.diagonal(inverse, axis1=1, axis2=2), 1.0)).sum(1)
        return jnp.nan_to_num(x), inverse, log_det + mask.sum(1) * LOG_2PI

    def _log_b(self, params, x):
        """(T, K, ..., K): log N(x_t; sum of means, covariance) of what is seen."""
        means = self._indicators(x.dtype) @ params.means.reshape(-1, x.shape[1])
        x, inverse, log_det = self._white(params, x)
        white = lambda a: a @ inverse.swapaxes(1, 2) if self.missing else (a @ inverse[0].T)[None]
        if self.missing:
            diff = white(x[:, None] - means)
        else:
            diff = white(x)[0][:, None] - white(means)
        log_b = -0.5 * ((diff**2).sum(-1) + log_det[:, None])
        return log_b.reshape(len(x), *[self.n_states] * self.n_chains)

    def _exact_one(self, params, x, length):
        log_z, (first, moves, states) = expected(*self._logs(params), self._log_b(params, x), length)
        hot = self._indicators(x.dtype)
        joint = states.reshape(len(x), -1)
        single = (joint @ hot).reshape(len(x), self.n_chains, self.n_states)
        pairs = jnp.einsum("ts,sa,sb->tab", joint, hot, hot)
        return log_z, (first, moves, single, pairs)

    def _structured_one(self, params, x, length):
        initial, transitions = self._logs(params)
        m, k, d = params.means.shape
        x, inverse, log_det = self._white(params, x)
        flat, white = (
            params.means.reshape(-1, d),
            inverse.swapaxes(1, 2) @ inverse,
        )  # C^-1 of what is seen, (T or 1, d, d)
        precise = (flat @ white).reshape(-1, m, k, d)  # W C^-1
        own = jnp.einsum("tmkd,mkd->tmk", precise, params.means)
        t = "t" if self.missing else "u"  # the same for all steps where nothing is missing

        def field(single, i):
            others = jnp.einsum("tmk,mkd->td", single, params.means) - single[:, i] @ params.means[i]
            return jnp.einsum(f"td,{t}kd->tk", x - others, precise[:, i]) - 0.5 * own[:, i]

        def chain(i, h):
            log_z, (first, moves, states) = expected(initial[i][None], transitions[i][None], h, length)
            return log_z, first[0], moves[0], states

        def sweep(single, _):
            for i in range(m):
                single = single.at[:, i].set(chain(i, field(single, i))[-1])
            return single, None

        single, _ = jax.lax.scan(sweep, jnp.full((len(x), m, k), 1 / k, x.dtype), None, length=self.n_sweeps)
        entropy, first, moves = [], [], []  # of q_m, plus E log p(chain m): log Z_m - E[log h]
        for i in range(m):
            h = field(single, i)
            log_z, starts, counts, states = chain(i, h)
            single = single.at[:, i].set(states)
            entropy.append(log_z - (states * h).sum())
            first.append(starts)
            moves.append(counts)
        pairs = _pairs(single)
        there = jnp.arange(len(x)) < length
        gram = flat @ white @ flat.T
        quad = jnp.einsum(f"td,{t}de,te->t", x, white, x) - 2 * jnp.einsum(f"tmk,{t}mkd,td->t", single, precise, x)
        quad = quad + jnp.einsum(f"tab,{t}ab->t", pairs, gram)
        bound = sum(entropy) - 0.5 * (there * (quad + log_det)).sum()
        return bound, (jnp.stack(first), jnp.stack(moves), single, pairs)

    # ---- M-step -----------------------------------------------------------------------------------------------
    def m_step(self, params, statistics):
        (first, moves), cross, both, second, count = statistics
        eps = jnp.finfo(count.dtype).eps
        rcond = 10 * eps * len(both)
        values, vectors = jnp.linalg.eigh(both)  # singular by M - 1 (a constant may move between chains): least norm
        kept = values > rcond * values[-1]
        inverse = (vectors * jnp.where(kept, 1 / jnp.where(kept, values, 1.0), 0.0)) @ vectors.T
        means = inverse @ cross
        left = second - means.T @ cross - cross.T @ means + means.T @ both @ means
        covariance = (left + left.T) / (2 * jnp.maximum(count, eps))
        covariance = _floored(covariance, params.variance, self.floor)
        initial, transitions = normalised(first, params.initial), normalised(moves, params.transitions)
        return FactorialParams(initial, transitions, means.reshape(params.means.shape), covariance, params.variance)

    def rebased(self, statistics, old, new):
        return statistics

    def log_prior(self, params):
        return jnp.zeros((), params.means.dtype)

    def n_parameters(self, params):
        m, k, d = params.means.shape
        return m * (k - 1) * (k + 1) + m * (k - 1) * d + d + d * (d + 1) // 2

    def faults(self, params):
        covariance, variance = np.asarray(params.covariance, np.float64), np.asarray(params.variance, np.float64)
        least = np.linalg.eigvalsh(covariance / np.sqrt(variance[:, None] * variance)).min()
        if least > 2 * self.floor:
            return []
        return [(2, "The noise fell to its floor: the chains explain a direction exactly. Use fewer chains or states.")]

    def uninformed(self, params, statistics):
        (first, moves), *_ = statistics
        each = [unseen(f, m, False, f" of chain {i}") for i, (f, m) in enumerate(zip(first, moves, strict=True))]
        return [found for chain in each for found in chain]

    def log_prob(self, params, rows):
        """log p of each sequence; of a structured E-step the bound on it."""
        lengths = lengths_of(rows)[0]
        if not self._exact:
            return self._chains(params, rows, lengths)[0]
        one = lambda x, length: log_partition(*self._logs(params), self._log_b(params, x), length)
        return jax.vmap(one)(rows, lengths)

    def posterior(self, params, rows, lengths=None):
        """P(s_t^m | x), or its approximation: (n, T, M, K); 0 after the end of a sequence. lengths: steps of each; None:
        up to the last that holds a value."""
        model = self if lengths is None else self._with_missing()  # steps before a given end may hold nothing
        lengths = lengths_of(rows)[0] if lengths is None else lengths
        there = jnp.arange(rows.shape[1]) < lengths[:, None]
        return model._chains(params, rows, lengths)[1][2] * there[..., None, None]

    def imputed(self, params, rows, lengths=None):
        """E[x_t | the whole sequence] where it is NaN, NaN after the end of a sequence. lengths: as of `posterior`."""
        states = self.posterior(params, rows, lengths)
        seen, _, rest = self._regression(params, rows)
        mean = seen + jnp.einsum("ntij,ntmk,mkj->nti", rest, states, params.means)
        return jnp.where(jnp.isnan(rows) & (states.sum((-1, -2)) > 0)[..., None], mean, rows)

    def sample(self, params, key, n):
        """One sequence of n steps: (rows (n, d), states (n, M))."""
        initial, transitions = self._logs(params)
        first_key, path_key, row_key = jr.split(key, 3)
        first = jr.categorical(first_key, initial)

        def step(state, key):
            new = jr.categorical(key, transitions[jnp.arange(self.n_chains), state])
            return new, new

        _, rest = jax.lax.scan(step, first, jr.split(path_key, n - 1))
        states = jnp.concatenate([first[None], rest])
        mean = params.means[jnp.arange(self.n_chains), states].sum(1)
        noise = jr.normal(row_key, mean.shape, mean.dtype) @ jnp.linalg.cholesky(params.covariance).T
        return mean + noise, states


def _pairs(single: Array) -> Array:
    """E[s s'] of independent chains: products of means, but E[s^m] on the diagonal of a chain's own block."""
    t, m, k = single.shape
    flat = single.reshape(t, m * k)
    same = jnp.kron(jnp.eye(m, dtype=single.dtype), jnp.ones((k, k), single.dtype))
    return flat[:, :, None] * flat[:, None, :] * (1 - same) + flat[:, :, None] * jnp.eye(m * k, dtype=single.dtype)


def _floored(covariance: Array, variance: Array, floor: float) -> Array:
    """No eigenvalue below the floor, in units of the columns' standard deviations."""
    unit = jnp.sqrt(variance)
    values, vectors = jnp.linalg.eigh(covariance / (unit[:, None] * unit))
    return (vectors * jnp.maximum(values, floor)) @ vectors.T * (unit[:, None] * unit)


def _there(rows: Array) -> Array:
    return jnp.arange(rows.shape[1]) < lengths_of(rows)[0][:, None]


def _observed(covariance: Array, mask: Array) -> tuple[Array, Array]:
    """(L^-1, C_oo^-1 with 0 elsewhere), L L' = C where both are seen and the identity elsewhere; over leading axes."""
    seen = mask.astype(covariance.dtype)
    both = seen[..., :, None] * seen[..., None, :]
    eye = jnp.eye(len(covariance), dtype=covariance.dtype)
    cholesky = jnp.linalg.cholesky(covariance * both + eye * (1 - both))
    inverse = solve_triangular(cholesky, jnp.broadcast_to(eye, cholesky.shape), lower=True)
    return inverse, (jnp.swapaxes(inverse, -1, -2) @ inverse) * both


def _ended(gone: np.ndarray) -> np.ndarray:
    """Steps after the last that holds a value."""
    nothing = np.asarray(gone.all(-1))
    return np.logical_and.accumulate(nothing[:, ::-1], 1)[:, ::-1]
