"""What the library needs of the process it runs in: JAX's debugging switches off for its own programs, and a process in
which JAX can compute."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax._src import xla_bridge

from .errors import JensenError, explain

# Each is a switch for looking into a program; in the library's own, points without a density are numbers like any other,
# scalars meet arrays, and host and device exchange what they compute.
_SWITCHES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "jax_debug_nans": (False, jax.debug_nans),
    "jax_debug_infs": (False, jax.debug_infs),
    "jax_debug_key_reuse": (False, jax.debug_key_reuse),
    "jax_enable_checks": (False, jax.enable_checks),
    "jax_check_tracer_leaks": (False, jax.check_tracer_leaks),
    "jax_disable_jit": (False, jax.disable_jit),
    "jax_numpy_dtype_promotion": ("standard", jax.numpy_dtype_promotion),
    "jax_numpy_rank_promotion": ("allow", jax.numpy_rank_promotion),
    "jax_transfer_guard_host_to_device": ("allow", jax.transfer_guard_host_to_device),
    "jax_transfer_guard_device_to_device": ("allow", jax.transfer_guard_device_to_device),
    "jax_transfer_guard_device_to_host": ("allow", jax.transfer_guard_device_to_host),
}

T = TypeVar("T", bound=type)
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = _forked or xla_bridge.backends_are_initialized()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """Around whatever compiles or runs the library's programs; also a decorator. In this thread the debugging switches of
    JAX have their usual values inside, and after it those that they had.

    Raises: JensenError in a process forked from one in which JAX had started: XLA's threads are not there, and it waits
            for them for ever.
    """
    if _forked:
        raise JensenError(
            explain(
                "computing in a forked process",
                f"JAX had started before the fork, and its threads are not in this process ({os.getpid()})",
                "the computation would wait for them for ever",
                'multiprocessing.get_context("spawn"), or joblib (its workers are started anew); or fork before JAX is used',
            )
        )
    with contextlib.ExitStack() as stack:
        for name, (usual, switch) in _SWITCHES.items():
            if getattr(jax.config, name, usual) not in (usual, None):
                stack.enter_context(switch(usual))
        yield


def computes(cls: T) -> T:
    """Class decorator: the public methods of a result, and what it finds once, run with `ready`."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, functools.cached_property):
            value.func = ready()(value.func)
        elif inspect.isfunction(value) and not name.startswith("_"):
            setattr(cls, name, ready()(value))
    return cls
