"""How the library's long-lived functions are compiled, and where their keys come from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .errors import check_seed

# LLVM's second optimisation level adds a fifth to the compile time and nothing to the speed of most programs; those that
# draw as many numbers as they multiply (Gibbs chains) gain a tenth by it, and are compiled thoroughly
_CPU_OPTIONS = {"xla_backend_optimization_level": "1"}


class Compiled:
    """`jax.jit` whose compiler options are chosen at the first call, when the backend is known."""

    def __init__(self, fn: Callable, *, thorough: bool = False, **options: Any):
        self.fn, self.thorough, self.options, self._jitted = fn, thorough, options, None
        self.__doc__ = fn.__doc__

    @property
    def jitted(self) -> Any:
        if self._jitted is None:
            quick = jax.default_backend() == "cpu" and not self.thorough
            self._jitted = jax.jit(self.fn, compiler_options=_CPU_OPTIONS if quick else None, **self.options)
        return self._jitted

    def __call__(self, *args: Any) -> Any:
        return self.jitted(*args)


def compiled(*static: int, thorough: bool = False) -> Callable[[Callable], Compiled]:
    """Decorator: compiled, with these arguments static."""
    return lambda fn: Compiled(fn, thorough=thorough, static_argnums=static)


def key_for(seed: int, purpose: str) -> Array:
    """A key that is a function of both, made on the host (deriving it on the device would compile one more program).

    seed: any whole number from 0 on; other numbers, other keys.
    """
    words = np.random.SeedSequence([check_seed(seed), *purpose.encode()]).generate_state(1)
    return jr.key(int(words[0] >> 1))


def root_key(seed: int) -> Array:
    """`jax.random.key(seed)`, which looks at 32 bits of it, for seeds of any size."""
    seed, rest = check_seed(seed) % 2**32, seed >> 32
    key = jr.key(seed)
    while rest:
        key, rest = jr.fold_in(key, rest % 2**32), rest >> 32
    return key
