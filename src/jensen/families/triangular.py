"""Triangular systems, solved inside the compiled program."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def solve_lower(lower: Float[Array, "D D"], rhs: Float[Array, " D"]) -> Float[Array, " D"]:
    """x with L x = rhs, by substitution; differentiable and batched as any function.

    Why not `jax.scipy.linalg.solve_triangular`: on CPUs a batch of those is spread over XLA's own threads by a kernel that
    waits for them. Two such batches at once, on two threads, wait for one another for ever (jaxlib 0.10).
    Arguments:  lower: lower-triangular, with a diagonal that is not 0; what is above it must be 0.
    Cost:       O(D^2), in D steps.
    """
    d = rhs.shape[0]

    def substitute(matrix: Array, order: Array, b: Array) -> Array:
        step = lambda i, x: x.at[order[i]].set((b[order[i]] - matrix[order[i]] @ x) / matrix[order[i], order[i]])
        return jax.lax.fori_loop(0, d, step, jnp.zeros_like(b))

    return jax.lax.custom_linear_solve(
        lambda x: lower @ x,
        rhs,
        lambda _, b: substitute(lower, jnp.arange(d), b),
        lambda _, b: substitute(lower.T, jnp.arange(d)[::-1], b),
    )
