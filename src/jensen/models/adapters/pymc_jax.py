"""PyTensor's translator to JAX, with what PyMC's densities need of it: double precision that is kept, and erfcx."""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array

from ...tree import default_float

_LOCK = threading.Lock()


def translate(graph: Any) -> Callable:
    """A rewritten `FunctionGraph` as a function of JAX arrays, for the precision that is on now."""
    module = _dispatch()
    original = module.jax_typify.dispatch(np.ndarray)

    def strong(data: np.ndarray, dtype: Any = None, **options: Any) -> Any:
        """PyTensor makes Python numbers of scalar constants, and arrays filled with one are then weakly typed: beside
        a float32 constant, of which PyMC has many, JAX would compute them in single precision."""
        if data.ndim == 0 and data.dtype.kind == "f":
            return jnp.asarray(data, dtype)
        return original(data, dtype=dtype, **options)

    with _LOCK, jax.ensure_compile_time_eval():  # its constants outlive the trace that asks for them
        module.jax_typify.register(np.ndarray)(strong)
        try:
            return module.jax_funcify(graph)
        finally:
            module.jax_typify.register(np.ndarray)(original)


def _dispatch() -> Any:
    """Importing it switches double precision on for the whole process; that is undone."""
    before = _globally_double()
    module = importlib.import_module("pytensor.link.jax.dispatch")
    if _globally_double() != before:
        jax.config.update("jax_enable_x64", before)
    _register(module.jax_funcify)
    return module


def _globally_double() -> bool:
    with ThreadPoolExecutor(1) as fresh:  # a new thread has no settings of its own
        return fresh.submit(lambda: default_float() == np.float64).result()


def _register(jax_funcify: Any) -> None:
    """Two operations of PyMC's own densities that have no JAX form, unless somebody has given them one."""
    positive_definite = getattr(importlib.import_module("pymc.distributions.multivariate"), "PosDefMatrix", None)
    if positive_definite is not None and jax_funcify.dispatch(positive_definite) is jax_funcify.dispatch(object):
        check = lambda value, *_: jnp.isfinite(jnp.linalg.cholesky(value)).all()
        jax_funcify.register(positive_definite)(lambda op, **_: check)
    if importlib.util.find_spec("tensorflow_probability") is None:  # PyTensor takes it from there
        jax_funcify.register(importlib.import_module("pytensor.scalar.math").Erfcx)(lambda op, **_: erfcx)


def erfcx(x: Array) -> Array:
    """exp(x^2) erfc(x), the scaled complementary error function: of normal tails, in truncated and censored models.

    Below -25 (-8 in single precision), where it nears overflow, it is constant, so that a branch that is not taken has
    a finite gradient.
    """
    x = jnp.asarray(x)
    far = 20.0 if x.dtype == jnp.float64 else 8.0
    x = jnp.maximum(x, 1 - float(np.log(jnp.finfo(x.dtype).max)) ** 0.5)
    near, tail = jnp.where(x < far, x, far), jnp.where(x < far, far, x)
    u = 0.5 / tail**2
    series = (1 - u * (1 - 3 * u * (1 - 5 * u * (1 - 7 * u * (1 - 9 * u))))) / (np.pi**0.5 * tail)
    return jnp.where(x < far, jnp.exp(near**2) * erfc(near), series)
