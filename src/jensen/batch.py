"""A minibatch."""

import equinox as eqx
from jaxtyping import Array, Float, PyTree


class Batch(eqx.Module):
    """Rows of data and what each counts for.

    rows: pytree with a leading axis B, or None where the model holds all it needs.
    weight: (B,): N / n on the n rows of this minibatch, 0 on padding; None when the batch is the whole data.
    """

    rows: PyTree = None
    weight: Float[Array, " B"] | None = None
