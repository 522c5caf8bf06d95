"""Batches of matrices on the CPU come in pieces that jaxlib 0.10 and 0.11.0 do not share out over threads."""

import os
import re
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

import jensen  # noqa: F401  (what is tested is what importing it does)
from jensen.lapack import SHARED

affected = pytest.mark.skipif(
    not (0, 10, 0) <= jaxlib.version.__version_info__ < (0, 11, 1), reason="this jaxlib shares nothing out over threads"
)
AT_ONCE = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
{first}
import jax, jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

@jax.jit
def solves(key):
    out = 0.0
    for k in jax.random.split(key, 6):
        a, b = jnp.sin(jax.random.normal(k, (2, 10_000, 8, 8)))
        out += solve_triangular(a + 5 * jnp.eye(8), b, lower=True).sum()
    return out

for i in range(100):
    solves(jax.random.key(i)).block_until_ready()
print("done")
"""


def at_once(first: str, timeout: float) -> str:
    code = [sys.executable, "-c", AT_ONCE.format(first=first)]
    return subprocess.run(code, capture_output=True, text=True, timeout=timeout, check=True).stdout


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a process confined to two cores")
def test_batches_at_once_do_not_wait_for_each_other():
    assert at_once("import jensen", 200) == "done\n"


@pytest.mark.slow
@affected
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_without_the_pieces_they_wait_for_ever():
    with pytest.raises(subprocess.TimeoutExpired):
        at_once("", 60)


SPD = lambda a: a @ a.mT + len(a.mT) * jnp.eye(a.shape[-1], dtype=a.dtype)
CALLS = {
    "cholesky": lambda a: jnp.linalg.cholesky(SPD(a)),
    "triangular": lambda a: jax.scipy.linalg.solve_triangular(SPD(a), a[..., :3], lower=True),
    "solve": lambda a: jnp.linalg.solve(SPD(a), a[..., :1]),
    "determinant": lambda a: jnp.linalg.slogdet(a),
    "inverse": lambda a: jnp.linalg.inv(SPD(a)),
    "eigh": lambda a: jnp.linalg.eigh(SPD(a)),
    "eigenvalues": lambda a: jnp.linalg.eigvals(a),
    "svd": lambda a: jnp.linalg.svd(a[..., :5]),
    "qr": lambda a: jnp.linalg.qr(a[..., :5]),
    "complex": lambda a: jnp.linalg.cholesky(SPD(a) + 0j),
    "gradient": jnp.vectorize(
        jax.grad(lambda a: jnp.log(jnp.linalg.cholesky(SPD(a))).trace()), signature="(n,n)->(n,n)"
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_numbers_as_one_by_one(name):
    """Over two axes of a batch, the last piece a short one."""
    call = CALLS[name]
    a = jax.random.normal(jax.random.key(0), (7, 211, 8, 8))
    together = jax.jit(jax.vmap(jax.vmap(call)))(a)
    one = jax.jit(call)
    for i, j in ((0, 0), (3, 100), (6, 210)):
        jax.tree.map(
            lambda got, want: np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-4),
            jax.tree.map(lambda x: x[i, j], together),
            one(a[i, j]),
        )


@affected
@pytest.mark.parametrize("name", CALLS)
def test_no_call_is_large_enough_to_be_shared_out(name):
    a = jax.ShapeDtypeStruct((7, 2111, 8, 8), jnp.float32)
    text = jax.jit(CALLS[name]).lower(a).as_text()
    batches = [int(n) for n in re.findall(r"custom_call @lapack_\w+\(.*?: \(tensor<(\d+)x\d+x\d+x", text)]
    assert batches, "no call found"
    least_work = 8**3 / 3  # of a Cholesky; of the others more
    assert max(batches) * least_work < SHARED
    assert not re.search(r"custom_call @lapack_\w+\(.*?: \(tensor<7x2111x", text)


def test_small_batches_are_left_as_they_are():
    text = jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((2, 50, 8, 8), jnp.float32)).as_text()
    assert "while" not in text and "tensor<2x50x8x8xf32>" in text


def test_symbolic_batches_pass():
    """Of an export whose batch is not known yet."""
    shape = jax.export.symbolic_shape("n, 8, 8")
    exported = jax.export.export(jax.jit(jnp.linalg.cholesky))(jax.ShapeDtypeStruct(shape, jnp.float32))
    a = np.broadcast_to(np.eye(8, dtype=np.float32), (3, 8, 8))
    np.testing.assert_array_equal(exported.call(a), a)
