"""Batches of matrices on the CPU, in pieces: jaxlib 0.10.0 to 0.11.0 may wait for itself for ever.

Those releases share a batch of LAPACK calls (Cholesky, triangular solves, LU, eigenvalues, ...) out over the pool of
threads that they may be running on, and wait there for the pieces. As many such calls at once as there are threads,
two on a machine of two cores, wait for each other for ever. A batch of little work is never shared out, so larger ones
are mapped over pieces of so little: the same numbers to the last bit, in 0.7 to 1.9 times the time on two cores. Later
releases share nothing out (jax-ml/jax issue 36927). This is done where a program is lowered, as before nobody knows the
batch: `vmap` may still come. So it holds for models of others too, such as a NumPyro model with a covariance.
"""

import functools
import math

import jax
import jaxlib
from jax._src.interpreters.mlir import _platform_specific_lowerings as lowerings
from jax._src.lax import linalg
from jax.extend.core import Primitive
from jax.interpreters import mlir

SHARED = 200_000  # operations of a batch that may be shared out (GetLapackBatchChunkSize)
WORK = {"cholesky": 1, "triangular_solve": 1, "lu": 1}  # operations a matrix, in (its size) x (its side), at most
OTHERS = 10


@functools.cache
def guard() -> None:
    """Makes batched linear algebra on the CPU safe, for the whole process; idle where jaxlib has no such defect."""
    if not (0, 10, 0) <= jaxlib.version.__version_info__ < (0, 11, 1):
        return
    rules = lowerings["cpu"]
    for primitive in {p for p in vars(linalg).values() if isinstance(p, Primitive)} & set(rules):
        rule = rules[primitive].rule
        mlir.register_lowering(primitive, _in_pieces(primitive, rule), platform="cpu", inline=rules[primitive].inline)


def _in_pieces(primitive, rule):
    @functools.wraps(rule)
    def lower(context, *operands, **params):
        if not all(isinstance(d, int) for a in context.avals_in for d in a.shape):  # symbolic, of an export
            return rule(context, *operands, **params)
        rank = max(a.ndim for a in context.avals_in)
        matrices = [a for a in context.avals_in if a.ndim == rank]
        batch, n = matrices[0].shape[:-2], math.prod(matrices[0].shape[:-2])
        size, side = max(math.prod(a.shape[-2:]) for a in matrices), min(matrices[0].shape[-2:])
        work = WORK.get(primitive.name, OTHERS) * max(1, size * side) * (3 if matrices[0].dtype.kind == "c" else 1)
        piece = max(1, SHARED // work)
        if n <= piece or any(a.shape[: len(batch)] != batch for a in context.avals_in):
            return rule(context, *operands, **params)

        def mapped(*arrays):
            flat = [a.reshape(n, *a.shape[len(batch) :]) for a in arrays]
            out = jax.lax.map(lambda one: primitive.bind(*one, **params), flat, batch_size=piece)
            return jax.tree.map(lambda a: a.reshape(*batch, *a.shape[1:]), out)

        return mlir.lower_fun(mapped, multiple_results=primitive.multiple_results)(context, *operands)

    return lower
