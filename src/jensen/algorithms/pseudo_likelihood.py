"""The pseudo-likelihood of a Boltzmann machine: each visible variable given all others, without a partition function."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ..models.boltzmann import Half

MONITORED = 32  # rows of a batch


def pseudo_log_likelihood(machine: Any, key: Array, x: Float[Array, "n v"], fields: Half) -> Float[Array, " n"]:
    """sum_i log p(x_i | x_-i) of rows, nats, estimated by one variable i of each row, drawn at random.

    fields: of the odd layers given x. Of real visibles and deep machines it is log p(x | hidden means) instead: there
    p(x_i | x_-i) has no closed form.
    Cost:       a row of W for each value that the variable can take: no product of matrices.
    Reference:  Besag (1975); Marlin, Swersky, Chen and de Freitas (2010).  [marlin2010inductive]
    """
    if machine.units[0].states is None or len(machine.units) > 2:
        field = machine.biases[0] + machine.gains[1] * (machine.means_at(fields, 1)[0] @ machine.weights[0].T)
        u = machine.units[0]
        return (u.statistic(x) * field).sum(-1) - u.base(x) - u.log_partition(field).sum(-1)
    (w,), size = machine.weights, machine.units[0].group
    n_groups = machine.n_visible // size
    columns = jr.randint(key, (len(x), 1), 0, n_groups) * size + jnp.arange(size)
    now = jnp.take_along_axis(x, columns, 1)
    values = jnp.array([[0.0], [1.0]], x.dtype) if size == 1 else jnp.eye(size, dtype=x.dtype)
    share = jnp.concatenate([1 - now, now], 1) if size == 1 else now  # of each value, where x is a probability
    change = values - now[:, None, :]
    moved = fields[0][:, None, :] + machine.gains[0] * (change @ w[columns])
    log_p = (change * machine.biases[0][columns][:, None, :]).sum(-1)
    log_p = log_p + machine.units[1].log_partition(moved).sum(-1)
    return n_groups * (share * jax.nn.log_softmax(log_p, axis=1)).sum(1)
