"""How the library's long-lived functions are compiled, and what becomes of their programs."""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .errors import check_seed
from .program import Program, traced
from .tree import default_float

T = TypeVar("T")

# LLVM's second optimisation level adds a fifth to the compile time and nothing to the speed of most programs; those that
# draw as many numbers as they multiply (Gibbs chains) gain a tenth by it, and are compiled thoroughly
_CPU_OPTIONS = {"xla_backend_optimization_level": "1"}
PROGRAMS = 96  # of one function that are kept: the least recently used goes
_CACHES: "weakref.WeakSet[Recent]" = weakref.WeakSet()


class Recent(Generic[T]):
    """The `size` most recently used values, by key; emptied by `clear_caches`."""

    def __init__(self, size: int):
        self.size, self._items, self._lock = size, OrderedDict(), threading.Lock()
        _CACHES.add(self)

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of this key, made if there is none."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        made = make()
        with self._lock:
            value = self._items.setdefault(key, made)
            self._items.move_to_end(key)
            while len(self._items) > self.size:
                self._items.popitem(last=False)
        return value

    def put(self, key: Any, value: T) -> None:
        """Replaces the value of this key."""
        self.get(key, lambda: value)
        with self._lock:
            self._items[key] = value

    def clear(self) -> None:
        with self._lock:
            self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


def clear_caches() -> None:
    """Forgets all compiled programs, jensen's and JAX's: their memory is free again, and the next fit compiles anew.

    Example:  >>> import jensen as jn
              >>> jn.clear_caches()
    """
    for cache in list(_CACHES):
        cache.clear()
    jax.clear_caches()


class Compiled:
    """`jax.jit` whose programs are kept by the value of their static arguments, at most `PROGRAMS` of them.

    A static argument that runs code of a user's own (`Static.foreign`) is no key: the function is traced with it, once a
    `Static`, the arrays that the trace read become arguments, and the traced program is the key. So the same code on new
    data compiles nothing, changed code compiles, and no program holds data.
    Compiler options are chosen at the first call, when the backend is known.
    """

    def __init__(self, fn: Callable, *, thorough: bool = False, static: Sequence[int] = (), donate: Sequence[int] = ()):
        self.fn, self.thorough, self.static, self.donate = fn, thorough, tuple(static), tuple(donate)
        self.__doc__ = fn.__doc__
        self._programs: Recent[Any] = Recent(PROGRAMS)

    def __call__(self, *args: Any) -> Any:
        fixed, given = self._split(args)
        return self._program(fixed, given)(*given)

    def lower(self, *args: Any) -> Any:
        """What `jax.jit` lowers for these arguments."""
        fixed, given = self._split(args)
        return self._program(fixed, given).lower(*given)

    def __len__(self) -> int:
        """The number of programs that are kept."""
        return len(self._programs)

    def digest(self, *args: Any) -> str | None:
        """Of the traced program and what it read; None where the static arguments say it all."""
        fixed, given = self._split(args)
        foreign = _foreign(fixed)
        if foreign is None:
            return None
        made = self._traced(foreign, fixed, given)
        return made.program.digest_with(made.consts)

    def _program(self, fixed: tuple, given: tuple) -> Any:
        foreign = _foreign(fixed)
        return self._known(fixed) if foreign is None else self._traced(foreign, fixed, given)

    def _split(self, args: tuple) -> tuple[tuple, tuple]:
        return tuple(args[i] for i in self.static), tuple(a for i, a in enumerate(args) if i not in self.static)

    def _bound(self, fixed: tuple) -> Callable:
        """fn of its dynamic arguments alone."""

        def run(*given):
            rest, own = iter(given), dict(zip(self.static, fixed, strict=True))
            return self.fn(*(own[i] if i in own else next(rest) for i in range(len(given) + len(fixed))))

        run.__name__ = run.__qualname__ = self.fn.__name__
        return run

    def _jitted(self, fn: Callable, donate: Sequence[int]) -> Any:
        quick = jax.default_backend() == "cpu" and not self.thorough
        return jax.jit(fn, donate_argnums=tuple(donate), compiler_options=_CPU_OPTIONS if quick else None)

    def _known(self, fixed: tuple) -> Any:
        """The program of static arguments that are keys; one that has `programs` remembers it, and is compared no more."""
        donate = [d - sum(s < d for s in self.static) for d in self.donate]
        make = lambda: self._programs.get(fixed, lambda: self._jitted(self._bound(fixed), donate))
        owner = next((s for s in fixed if hasattr(s, "programs")), None)
        if owner is None:
            return make()
        key = self, tuple(s for s in fixed if s is not owner)
        if key not in owner.programs:
            owner.programs[key] = make()
        return owner.programs[key]

    def _traced(self, foreign: Any, fixed: tuple, given: tuple) -> "_ByTrace":
        """The program of static arguments one of which is none. Trees stay outside of it: they, too, hold the user's code."""
        leaves, treedef = jax.tree.flatten(given)
        others = tuple(s for s in fixed if s is not foreign)
        form = tuple((jnp.shape(a), jnp.result_type(a), getattr(a, "weak_type", False)) for a in leaves)
        key = self, others, treedef, form, default_float()
        if key not in foreign.programs:
            program, consts, out = traced(self._bound(fixed), *given, final=True)
            sizes = np.cumsum([0, *(len(jax.tree.leaves(g)) for g in given)])
            wanted = [d - sum(s < d for s in self.static) for d in self.donate]
            donate = tuple(1 + int(i) for d in wanted for i in range(sizes[d], sizes[d + 1]))

            def run(consts, *leaves):
                return program(consts, (), *leaves)

            run.__name__ = run.__qualname__ = self.fn.__name__
            jitted = self._programs.get((program, donate), lambda: self._jitted(run, donate))
            foreign.programs[key] = _ByTrace(program, consts, out, jitted)
        return foreign.programs[key]


class _ByTrace(NamedTuple):
    """A traced program, what it read, the tree it returns, and its compiled form: (consts, *leaves) -> leaves."""

    program: Program
    consts: tuple[Array, ...]
    out: Any
    jitted: Any

    def __call__(self, *given: Any) -> Any:
        return jax.tree.unflatten(self.out, self.jitted(self.consts, *jax.tree.leaves(given)))

    def lower(self, *given: Any) -> Any:
        return self.jitted.lower(self.consts, *jax.tree.leaves(given))


def _foreign(fixed: tuple) -> Any:
    """The static argument that is no key, if there is one."""
    return next((s for s in fixed if getattr(s, "foreign", False)), None)


def compiled(*static: int, thorough: bool = False) -> Callable[[Callable], Compiled]:
    """Decorator: compiled, with these arguments static."""
    return lambda fn: Compiled(fn, thorough=thorough, static=static)


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
