"""A traced program as a value: equal if it computes the same, with the arrays it read as arguments."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, PyTree

from .arrays import converted, in_double
from .environment import of_library
from .errors import DataError
from .tree import Frozen, default_float

_INLINED = frozenset(
    {"jit", "pjit", "closed_call"}
)  # evaluated step by step, so that numbers given to them stay arguments
_RULED = frozenset(
    {"custom_jvp_call", "custom_vjp_call"}
)  # have derivatives of their own, of no use in a final program
_WRITTEN = frozenset(
    {0.0, 0.5, 1.0, 2.0, -0.5, -1.0, -2.0}
)  # numbers that compilers simplify: data only where known to be


class Program:
    """What a function computes on arguments of fixed shapes, without the arrays and numbers that it read.

    Equal to another if every step is the same. `digest`: the same in every process.
    Arguments:  closed: the trace.   is_data: which of the numbers written in it are data, and so arguments.
                final: it will not be differentiated.
    """

    def __init__(
        self, closed: ClosedJaxpr, is_data: Callable[[float], bool] = lambda number: False, *, final: bool = False
    ):
        self.jaxpr, self._slots = closed.jaxpr, {}
        self._inlined = _INLINED | _RULED if final else _INLINED
        self.numbers: list[np.ndarray] = []
        self._lift(closed.jaxpr, is_data)
        writer = _Writer(self._slots, self._inlined)
        self.key = writer.jaxpr(closed.jaxpr)
        self.digest = hashlib.sha256(repr(writer.stable(self.key)).encode()).hexdigest()[:24]
        self._hash = hash(self.key)

    def digest_with(self, arrays: PyTree) -> str:
        """Of the program and of what it read."""
        digest = hashlib.sha256(self.digest.encode())
        for leaf in jax.tree.leaves(arrays):
            a = np.ascontiguousarray(leaf)
            digest.update(repr((a.shape, str(a.dtype))).encode() + a.tobytes())
        return digest.hexdigest()[:24]

    def _lift(self, jaxpr: Jaxpr, is_data: Callable[[float], bool]) -> None:
        for eqn in jaxpr.eqns:
            for atom in eqn.invars:
                if isinstance(atom, Literal) and id(atom) not in self._slots and _is_number(atom, is_data):
                    self._slots[id(atom)] = len(self.numbers)
                    self.numbers.append(np.asarray(atom.val, atom.aval.dtype))
            if eqn.primitive.name in self._inlined:
                for inner in _inner(eqn.params):
                    self._lift(inner, is_data)

    def __call__(self, consts: Sequence[Array], numbers: Sequence[Array], *leaves: Array) -> list[Array]:
        """The outputs, flat."""
        return self._run(self.jaxpr, consts, numbers, leaves)

    def _run(self, jaxpr: Jaxpr, consts: Sequence, numbers: Sequence, leaves: Sequence) -> list:
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, leaves, strict=True))

        def read(atom: Any) -> Any:
            if not isinstance(atom, Literal):
                return values[atom]
            slot = self._slots.get(id(atom))
            return atom.val if slot is None else numbers[slot]

        for eqn in jaxpr.eqns:
            given = list(map(read, eqn.invars))
            inner = _body(eqn)
            if eqn.primitive.name in self._inlined and isinstance(inner, ClosedJaxpr):
                out = self._run(inner.jaxpr, inner.consts, numbers, given)
            else:
                with eqn.ctx.manager:
                    out = eqn.primitive.bind(*given, **eqn.primitive.get_bind_params(eqn.params))
            out = out if isinstance(out, (list, tuple)) else [out]
            values.update(zip(eqn.outvars, out, strict=True))
        return list(map(read, jaxpr.outvars))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self._hash == other._hash and self.key == other.key)

    def __repr__(self) -> str:
        return f"Program({self.digest})"


def _is_number(atom: Literal, is_data: Callable[[float], bool]) -> bool:
    aval: Any = atom.aval
    if aval.shape != () or aval.weak_type or not jnp.issubdtype(aval.dtype, jnp.floating):
        return False
    number = float(np.asarray(atom.val))
    return math.isfinite(number) and is_data(number)


def _body(eqn: Any) -> Any:
    return eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))


def open_ended(jaxpr: Jaxpr) -> bool:
    """Does it have a loop whose end depends on its values (an adaptive solver)? Where these are extreme it may not end."""
    return any(e.primitive.name == "while" or any(map(open_ended, _inner(e.params))) for e in jaxpr.eqns)


def _inner(params: dict) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


class _Identity:
    """An object that only itself equals, kept alive."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value


class _Writer:
    """A jaxpr as nested tuples: variables by the order in which they appear, literals by value, inner programs in place."""

    def __init__(self, slots: dict[int, int], inlined: frozenset[str]):
        self.slots, self.inlined = slots, inlined
        self._writing: list[str] = []  # rules of derivatives, within one another

    def jaxpr(self, jaxpr: Jaxpr) -> tuple:
        names: dict[Any, int] = {}
        name = lambda v: names.setdefault(v, len(names))
        of = lambda v: (name(v), *_type(v.aval))
        heads = tuple(map(of, (*jaxpr.constvars, *jaxpr.invars)))

        def atom(a: Any) -> Any:
            if not isinstance(a, Literal):
                return names[a]
            if id(a) in self.slots:
                return ("number", self.slots[id(a)])
            value = np.asarray(a.val)
            return ("literal", value.tobytes(), *_type(a.aval))

        steps = tuple(
            (e.primitive.name, tuple(map(atom, e.invars)), self.params(e), tuple(map(of, e.outvars)))
            for e in jaxpr.eqns
        )
        return len(jaxpr.constvars), heads, steps, tuple(map(atom, jaxpr.outvars))

    def params(self, eqn: Any) -> tuple:
        if eqn.primitive.name in self.inlined and isinstance(_body(eqn), ClosedJaxpr):
            return (self.value(_body(eqn), eqn),)
        return tuple((k, self.value(v, eqn)) for k, v in sorted(eqn.params.items()) if k != "out_trees")

    def value(self, v: Any, eqn: Any) -> Any:
        inner = lambda x: self.value(x, eqn)
        if isinstance(v, ClosedJaxpr):
            return ("closed", self.jaxpr(v.jaxpr), tuple(map(inner, v.consts)))
        if isinstance(v, Jaxpr):
            return ("jaxpr", self.jaxpr(v))
        if isinstance(v, (np.ndarray, jax.Array)):
            a = np.asarray(v)
            return ("array", a.shape, str(a.dtype), hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest())
        if isinstance(v, (tuple, list)):
            return (type(v).__name__, *map(inner, v))
        if isinstance(v, dict):
            return ("dict", *((k, inner(x)) for k, x in sorted(v.items(), key=repr)))
        if (callable(v) or hasattr(v, "call_wrapped")) and not isinstance(v, type):
            return self.rule(v, eqn)
        try:
            hash(v)
        except TypeError:
            return _Identity(v)
        return (type(v).__name__, v)

    def rule(self, rule: Any, eqn: Any) -> Any:
        """A derivative rule, or a function called back. Of an installed package: by where it is written; a user's rule of
        a `custom_jvp` by its own trace; any other by identity."""
        info = getattr(rule, "debug_info", None)
        source = getattr(info, "func_src_info", None) or ""
        file = source.split(" at ")[-1].rsplit(":", 1)[0] if " at " in source else None
        if file is not None and of_library(file):
            return ("rule", source)
        if eqn.primitive.name == "custom_jvp_call" and hasattr(rule, "call_wrapped"):
            if source in self._writing:
                return ("rule within itself", self._writing.index(source))
            self._writing.append(source)
            n = len(eqn.invars) - eqn.params["num_consts"]
            jaxpr, consts, zeros = rule.call_wrapped(*[False] * n)
            out = ("traced rule", self.jaxpr(jaxpr), tuple(self.value(c, eqn) for c in consts), tuple(zeros))
            self._writing.pop()
            return out
        try:
            return ("callable", type(rule).__name__, rule) if hash(rule) is not None else None
        except TypeError:
            return _Identity(rule)

    def stable(self, key: Any) -> Any:
        """Without what only this process knows."""
        if isinstance(key, tuple):
            if len(key) == 3 and key[0] == "callable":
                return ("callable", getattr(key[2], "__qualname__", key[1]))
            return tuple(map(self.stable, key))
        if isinstance(key, _Identity):
            return type(key.value).__qualname__
        if key is None or isinstance(key, (bool, int, float, complex, str, bytes)):
            return key
        text = repr(key)
        return type(key).__qualname__ if " at 0x" in text else text


def _type(aval: Any) -> tuple:
    if not hasattr(aval, "shape"):
        return (str(aval),)
    return aval.shape, str(aval.dtype), bool(getattr(aval, "weak_type", False))


def traced(fn: Callable, *args: PyTree, **options: Any) -> tuple[Program, tuple[Array, ...], Any]:
    """(program, arrays it read, tree of its outputs) of fn at arguments of these shapes; options of `Program`."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    program = Program(closed, **options)
    return program, tuple(jnp.asarray(c) for c in closed.consts), jax.tree.structure(out)


class Untraced(Exception):
    """A traced function is called with arguments of other shapes than it was traced for."""

    def __init__(self, args: tuple):
        self.args_spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), args)


class Traced(eqx.Module):
    """A user's function as its trace: it computes the same, and its arrays and numbers are arguments of what is compiled.

    programs: for each form of arguments (tree, shapes, dtypes): the program, and the tree of what it returns.
    arrays:   for each of them what it read: (arrays, numbers), never trained.
    Raises:   Untraced for arguments of a form it was not traced for.
    """

    programs: tuple[tuple[Any, Program, Any], ...] = eqx.field(static=True)
    arrays: Frozen[tuple[tuple[tuple[Array, ...], tuple[Array, ...]], ...]]

    @classmethod
    def of(cls, made_of: Callable[[Any], Callable], f: Any, forms: Sequence[tuple], read: "Read") -> "Traced":
        """What is made of a `Function`, traced at each of these tuples of arguments (arrays, or `ShapeDtypeStruct`s).

        Raises: DataError for an array that f reads and single precision would blur, where that is in force.
        """
        read.check(lambda: made_of(f.copied()), forms[:1])
        fn = made_of(f)
        programs, arrays = [], []
        for args in forms:
            program, consts, out = traced(fn, *args, is_data=read.is_data)
            programs.append((form(args), program, out))
            arrays.append((consts, tuple(jnp.asarray(n) for n in program.numbers)))
        return cls(tuple(programs), Frozen(tuple(arrays)))

    def __call__(self, *args: PyTree) -> PyTree:
        given = form(args)
        for (own, program, out), (consts, numbers) in zip(self.programs, self.arrays.value, strict=True):
            if own == given:
                return jax.tree.unflatten(out, program(consts, numbers, *jax.tree.leaves(args)))
        raise Untraced(args)


def form(args: tuple) -> tuple:
    """Tree, shapes, dtypes and precision of arguments."""
    leaves, treedef = jax.tree.flatten(args)
    return treedef, tuple((jnp.shape(a), str(jnp.result_type(a))) for a in leaves), str(default_float())


class Read(NamedTuple):
    """What a user's function was found to read.

    numbers:    those found as values.   constants: those written in its code.   arrays: copies, as it has them.
    """

    numbers: frozenset[float] = frozenset()
    constants: frozenset[float] = frozenset()
    arrays: tuple[np.ndarray, ...] = ()

    def is_data(self, number: float) -> bool:
        """Is a number in a trace data: found as a value, or nowhere written in the code?"""
        known, fixed = _also_single(self.numbers), _also_single(self.constants) | _WRITTEN
        return number in known or number not in fixed

    def check(self, copied: Callable[[], Callable], forms: Sequence[tuple]) -> None:
        """Raises: DataError as `arrays.converted`, for what enters the function's program as it is: what it computes in
        NumPy first, centred or scaled, is computed in the user's own precision.

        Arguments:  copied: makes the function anew, on copies: those of one trace are of one precision.
        """
        if in_double() or all(map(_survives, self.arrays)):
            return
        for args in forms:
            with jax.enable_x64(True):
                consts = jax.make_jaxpr(copied())(*args).consts
            for c in map(np.asarray, consts):
                converted("an array that the model's function reads", c, False)


def _survives(a: np.ndarray) -> bool:
    try:
        converted("", a, False)
    except DataError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _also_single(numbers: frozenset[float]) -> frozenset[float]:
    return numbers | {float(np.float32(v)) for v in numbers if abs(v) < 3e38}
