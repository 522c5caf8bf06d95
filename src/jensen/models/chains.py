"""Hidden Markov chains: log Z by the forward recursion in log space; expected counts are its gradients; Viterbi."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from .em import HARDLY


def log_partition(
    initial: Float[Array, "M K"],
    transitions: Float[Array, "M K K"],
    log_b: Float[Array, "T *K"],
    length: Int[Array, ""],
) -> Float[Array, ""]:
    """log sum over the paths of M independent chains of p(paths) exp(sum_t log_b[t, s_t^1, ..., s_t^M]).

    initial, transitions: log-probabilities. log_b: one axis of K for each chain. Steps from `length` on do not count.
    d log Z / d log_b = P(s_t | x), d log Z / d transitions = expected numbers of transitions: no backward pass is written.
    Cost:       T M K^(M + 1).
    """
    chains = len(initial)

    def moved(alpha):
        for m in range(chains):
            to_last = jnp.moveaxis(alpha, m, -1)[..., :, None] + transitions[m]
            alpha = jnp.moveaxis(logsumexp(to_last, axis=-2), -1, m)
        return alpha

    first = log_b[0]
    for m in range(chains):
        first = first + initial[m].reshape([-1 if i == m else 1 for i in range(chains)])

    def step(alpha, at):
        log_bt, t = at
        return jnp.where(t < length, moved(alpha) + log_bt, alpha), None

    alpha, _ = jax.lax.scan(step, first, (log_b[1:], jnp.arange(1, len(log_b))))
    return logsumexp(alpha)


def expected(
    initial: Array, transitions: Array, log_b: Array, length: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """(log Z, (expected first states (M, K), transitions (M, K, K), P(s_t | x) (T, *K)))."""
    return jax.value_and_grad(log_partition, argnums=(0, 1, 2))(initial, transitions, log_b, length)


def viterbi(
    initial: Float[Array, " K"], transitions: Float[Array, "K K"], log_b: Float[Array, "T K"], length: Int[Array, ""]
) -> Int[Array, " T"]:
    """The most probable path; -1 from `length` on. Ties go to the first state.   Reference: Viterbi (1967)."""
    k = len(initial)

    def forward(score, at):
        log_bt, t = at
        through = score[:, None] + transitions
        best = jnp.where(t < length, through.max(0) + log_bt, score)
        return best, jnp.where(t < length, through.argmax(0), jnp.arange(k))

    score, came_from = jax.lax.scan(forward, initial + log_b[0], (log_b[1:], jnp.arange(1, len(log_b))))
    last = score.argmax()
    first, path = jax.lax.scan(lambda s, back: (back[s], s), last, came_from, reverse=True)
    path = jnp.concatenate([first[None], path])
    return jnp.where(jnp.arange(len(log_b)) < length, path, -1)


def lengths_of(rows: Float[Array, "n T d"]) -> tuple[Int[Array, " n"], Array]:
    """(steps up to the last that holds a value, at least 1; which steps hold one): NaN marks what is missing."""
    present = ~jnp.isnan(rows).all(-1)
    steps = jnp.arange(1, rows.shape[1] + 1)
    return jnp.maximum((present * steps).max(1), 1), present


def unseen(first: np.ndarray, moves: np.ndarray, smoothed: bool, of: str = "") -> list[tuple[int, str]]:
    """States of one chain that the data say nothing of, from expected first states (K,) and transitions (K, K): as
    `AbstractEM.uninformed`. smoothed: pseudo-counts stand in for what was not seen; of: the chain, in words."""
    out: list[tuple[int, str]] = []
    first, moves = np.asarray(first, np.float64), np.asarray(moves, np.float64)
    if not moves.sum() >= HARDLY:
        return [
            (int(not smoothed), f"No transition was ever seen{of}: the transition matrix is not learned from data.")
        ]
    for s in np.flatnonzero(first + moves.sum(0) < HARDLY):
        out.append((1, f"State {s}{of} is never entered: nothing of it is learned. Use fewer states."))
    for s in np.flatnonzero((moves.sum(1) < HARDLY) & (first + moves.sum(0) >= HARDLY)):
        why = f"No transition out of state {s}{of} was ever seen: its row of the transition matrix is not learned from data"
        out.append((int(not smoothed), f"{why}."))
    others = moves.sum(0) - np.diagonal(moves)
    for s in np.flatnonzero((others < HARDLY) & (first >= HARDLY)) if len(first) > 1 else []:
        out.append((0, f"No transition into state {s}{of} from another was ever seen."))
    return out


def safe_log(p: Array) -> Array:
    """log p, the log of the smallest normal number where p is 0: finite, so that gradients are."""
    return jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))


def normalised(counts: Array, kept: Array) -> Array:
    """Rows of counts as probabilities; a row without counts stays as it was."""
    total = counts.sum(-1, keepdims=True)
    return jnp.where(total > jnp.finfo(counts.dtype).eps, counts / jnp.where(total > 0, total, 1.0), kept)
