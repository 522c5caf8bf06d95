"""PyTensor graphs as functions of JAX arrays: translated to JAX, or called back where an operation has no JAX form."""

import importlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...arrays import converted
from ...errors import JensenError, ModelError, explain
from ...tree import default_float
from .. import host
from .pymc_jax import translate

LARGE = 64  # numbers: a constant array of as many is an argument of the compiled program, not a part of it


class Computation:
    """Outputs of a PyTensor graph, given values and data.

    Arguments:  inputs: symbolic values.   data: symbolic shared variables and large constants -> their values.
                density: the one output is a log density, to be differentiated in the values.   name: for messages.
                names: of the outputs.
    At the first call it is settled how it is computed: "jax"; "jax, fixed data" where the size of an array depends on
    the data; "pytensor", called back, where JAX has no form of an operation (`reasons` says which).
    """

    def __init__(
        self,
        inputs: Sequence,
        outputs: Sequence,
        data: dict,
        *,
        density: bool,
        check_bounds: bool,
        name: str,
        names: tuple[str, ...] = (),
    ):
        self.inputs, self.outputs, self.data, self.names = list(inputs), list(outputs), data, names
        self.density, self.name, self.check_bounds = density, name, check_bounds
        self.how, self.reasons = "", list[str]()
        self.differentiable = True
        self._run: Callable = lambda values, data: []
        self._lock = threading.RLock()

    def __call__(self, values: Sequence[Array], data: Sequence[Array]) -> list[Array]:
        self.settle(values, data)
        with quiet():
            return list(self._run(list(values), list(data)))

    def settle(self, values: Sequence[Any], data: Sequence[Any]) -> None:
        """The first way that works for these shapes."""
        with self._lock:
            if self.how:
                return
            like = lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a))
            spec = jax.tree.map(like, (list(values), list(data)))
            ways = {"jax": self._in_jax, "jax, fixed data": self._in_jax_with_fixed_data, "pytensor": self._called_back}
            for how, make in ways.items():
                try:
                    with quiet():
                        run = make()
                        jax.eval_shape(self._tried(run), *spec)
                    self.how, self._run = how, run
                    return
                except JensenError:
                    raise
                except Exception as error:
                    self.reasons.append(f"{how}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            wrong, because = "neither JAX nor PyTensor computes it", "; ".join(self.reasons)
            raise ModelError(explain(self.name, wrong, because, "operations that one of them has"))

    def _tried(self, run: Callable) -> Callable:
        if self.density and self.differentiable:
            return lambda v, d: jax.value_and_grad(lambda v: run(v, d)[0].sum())(v)
        return run

    def _in_jax(self) -> Callable:
        types = importlib.import_module("pytensor.tensor").TensorType
        free = {d: types(d.type.dtype, shape=np.shape(a))() for d, a in self.data.items()}
        program = Translated([*self.inputs, *free.values()], replaced(self.outputs, free), self.check_bounds, self.name)
        return lambda values, data: program(*values, *data)

    def _in_jax_with_fixed_data(self) -> Callable:
        program = Translated(self.inputs, self._fixed(), self.check_bounds, self.name)
        return lambda values, data: program(*values)

    def _fixed(self) -> list:
        constant = importlib.import_module("pytensor.tensor").constant
        return replaced(self.outputs, {d: constant(a, dtype=d.type.dtype) for d, a in self.data.items()})

    def _called_back(self) -> Callable:
        outputs = self._fixed()
        evaluate = compiled(self.inputs, outputs, self.check_bounds)
        if self.density:
            return self._density_called_back(evaluate, outputs[0])
        zeros = [np.zeros([1 if n is None else n for n in v.type.shape], v.type.dtype) for v in self.inputs]

        def run(values: list, data: list) -> list:
            at_zero = evaluate(*[np.zeros(np.shape(v), z.dtype) for v, z in zip(values, zeros, strict=True)])
            spec = [jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a)) for a in at_zero]
            return host.call(lambda z: _stacked(evaluate, z, at_zero), spec, values, vectorized=True)

        return run

    def _density_called_back(self, evaluate: Callable, output: Any) -> Callable:
        value = lambda z: _stacked(evaluate, z, [np.zeros(())])[0]
        slope = self._slope(output)
        return lambda values, data: [host.density(value, slope, values, vectorized=True, name=self.name)]

    def _slope(self, output: Any) -> Callable | None:
        """Points -> (values, gradients); None, and the reason is kept, where PyTensor has no gradient."""
        try:
            both = compiled(self.inputs, [output, *gradient(output, self.inputs)], self.check_bounds)
        except Exception as error:
            self.reasons.append(f"its gradient: {type(error).__name__}: {error}")
            self.differentiable = False
            return None

        def value_and_grad(z: list) -> tuple[np.ndarray, list]:
            first, *rest = _stacked(both, z, [np.zeros(()), *(a[0] for a in z)])
            return first, rest

        return value_and_grad


class Translated:
    """A graph in JAX: translated for single and for double precision, each when it is first called for."""

    def __init__(self, inputs: Sequence, outputs: Sequence, check_bounds: bool, name: str):
        graph = importlib.import_module("pytensor.graph.fg").FunctionGraph(list(inputs), list(outputs), clone=True)
        mode = importlib.import_module("pytensor.compile.mode").JAX
        mode.including(_bounds(check_bounds)).optimizer.rewrite(graph)
        self.graph, self.name, self.made = graph, name, dict[Any, Callable]()

    def __call__(self, *arguments: Array) -> list[Array]:
        dtype = default_float()
        if dtype not in self.made:
            constants = (v.data for v in self.graph.variables if isinstance(getattr(v, "data", None), np.ndarray))
            for number in (c for c in constants if c.dtype.kind in "iuf"):
                converted(f"a constant of {self.name}", number)
            self.made[dtype] = translate(self.graph)
        return list(self.made[dtype](*arguments))


def _bounds(check: bool) -> str:
    """The rewrite that PyMC itself applies: a parameter out of range gives -inf, or is not looked at."""
    return "local_check_parameter_to_ninf_switch" if check else "local_remove_check_parameter"


def compiled(inputs: Sequence, outputs: Sequence, check_bounds: bool) -> Callable:
    """A PyTensor function of NumPy arrays; one call at a time, since its calls share their memory."""
    pytensor = importlib.import_module("pytensor")
    mode = pytensor.compile.mode.get_mode(None).including(_bounds(check_bounds))
    fn, lock = pytensor.function(list(inputs), list(outputs), mode=mode, on_unused_input="ignore"), threading.Lock()
    dtypes = [v.type.dtype for v in inputs]

    def call(*values: np.ndarray) -> list[np.ndarray]:
        with lock:
            return [np.array(a) for a in fn(*[np.asarray(v, t) for v, t in zip(values, dtypes, strict=True)])]

    return call


def gradient(output: Any, inputs: Sequence) -> list:
    """Symbolic d output / d inputs."""
    simpler = importlib.import_module("pymc.pytensorf").rewrite_pregrad(output)
    return importlib.import_module("pytensor").grad(simpler, list(inputs), disconnected_inputs="ignore")


def replaced(outputs: Sequence, new: dict) -> list:
    """The same graph with these variables replaced."""
    replace = importlib.import_module("pytensor.graph.replace").clone_replace
    return list(replace(list(outputs), new, rebuild_strict=False)) if new else list(outputs)


def _stacked(evaluate: Callable, values: list, like: list) -> list[np.ndarray]:
    """`evaluate` at each of n points, results stacked; nan where PyTensor raises for a value outside of a domain."""
    n, rows = len(values[0]), []
    for i in range(n):
        out = host.guarded(evaluate, *[v[i] for v in values])
        rows.append([np.full(np.shape(a), np.nan) for a in like] if out is host.UNDEFINED else out)
    return [np.stack([np.asarray(r[j]) for r in rows]) for j in range(len(like))]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings for PyTensor's 64-bit casts, which single precision ignores, and for its skipped checks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype")
        warnings.filterwarnings("ignore", "Skipping")
        yield
