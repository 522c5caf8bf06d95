"""PyMC models: over their unconstrained value variables."""

import weakref
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...arrays import host, in_double, in_force, lifted
from ...errors import ModelError, explain
from ...facts import Fact
from ...tree import Frozen, default_float
from ..base import AbstractModel
from .pymc_graph import LARGE, Computation, replaced

Tree = dict[str, Array]
_PROGRAMS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # so that a second fit compiles nothing


class PyMCModel(AbstractModel):
    """A PyMC model and its data, as they were when `from_pymc` was called.

    Definition: log p(z, x) = `pymc.Model.logp()`: all factors and potentials, constants and log |det dx/dz| included.
    Latents:    PyMC's value variables, by the names of their random variables; a Dirichlet of K has K - 1 coordinates.
    Facts:      DIFFERENTIABLE unless PyTensor has neither a JAX form nor a gradient for some operation.
    """

    program: "Program" = eqx.field(static=True)
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    data: Frozen[list[Any]]
    plated: ClassVar[bool] = False
    rows: ClassVar[None] = None  # its data are its own, and none can be given to `fit`

    def __init__(self, program: "Program", shapes: dict[str, tuple[int, ...]], data: list[Any]):
        self.program, self.shapes, self.data = program, tuple(shapes.items()), Frozen(data)

    @property
    def facts(self) -> frozenset:
        own = {Fact.EXACT_LOG_WEIGHT}
        return frozenset(own | {Fact.DIFFERENTIABLE} if self.program.log_density.differentiable else own)

    @property
    def latents(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct(shape, default_float()) for name, shape in self.shapes}

    @property
    def site_kinds(self) -> dict[str, str]:
        return {name: "real" for name, _ in self.shapes}

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """The data of the observed variables, by name."""
        return dict(self.program.observed)

    @property
    def backend(self) -> str:
        """How the log density is computed: "jax"; "jax, fixed data"; "pytensor", called back."""
        return self.program.log_density.how

    def lifted(self) -> "PyMCModel":
        """The model with its data in the precision in force.

        Raises:  DataError for data that single precision would blur; ModelError where the density itself needs double.
        """
        made = in_force(self)
        if not in_double() and made.backend != "pytensor" and not self.program.single_is_enough:
            _check_single(self)
            self.program.single_is_enough = True
        return made

    def log_density(self, z: Tree, x: Any = None) -> Float[Array, ""]:
        return self._run(self.program.log_density, z)[0].sum()

    def constrain(self, z: Tree) -> Tree:
        """The free random variables."""
        return self._named(self.program.constrain, z)

    def deterministics(self, z: Tree) -> Tree:
        """The `pymc.Deterministic` variables, but those that depend on randomness outside of the model."""
        return self._named(self.program.deterministics, z)

    def log_likelihood(self, z: Tree) -> Tree:
        """Observed variable -> log p(x_i | latents) of each element. Potentials are not in it."""
        return self._named(self.program.log_likelihood, z)

    def unconstrain(self, x: Tree) -> tuple[Tree, Array]:
        """Inverse of `constrain`, and log |det dx/dz| summed over the variables."""
        *z, log_det = self._run(self.program.unconstrain, x)
        return dict(zip(self.program.names, z, strict=True)), log_det

    def _run(self, computation: Computation, values: Tree) -> list[Array]:
        given = [jnp.asarray(values[n], default_float()) for n in self.program.names]
        return [_floats(a) for a in computation(given, lifted(self.data.value))]

    def _named(self, computation: Computation, z: Tree) -> Tree:
        names = computation.names
        return dict(zip(names, self._run(computation, z), strict=True)) if names else {}


class Program:
    """The symbolic half of a model. Compared by identity: it keys the compilation cache."""

    def __init__(self, pymc: Any, model: Any):
        self.names = tuple(v.name for v in model.free_RVs)
        logp, elementwise, values, fixed, back = _graphs(pymc, model)
        self.observed = {v.name: _value(model.rvs_to_values[v]) for v in model.observed_RVs}
        every = [logp, *elementwise, *values, *fixed.values(), *back[1]]
        self.data = _data(every)
        self.signature, self.single_is_enough = _signature(model), False
        make = lambda what, inputs, outputs, names=(), density=False: Computation(
            inputs, outputs, self.data, density=density, check_bounds=model.check_bounds, names=names,
            name=f"{what} of the PyMC model",
        )  # fmt: skip
        zs = list(model.value_vars)
        self.log_density = make("the log density", zs, [logp], density=True)
        self.constrain = make("`constrain`", zs, values, self.names)
        self.deterministics = make("`deterministics`", zs, list(fixed.values()), tuple(fixed))
        self.log_likelihood = make("`log_likelihood`", zs, elementwise, tuple(self.observed))
        self.unconstrain = make("`unconstrain`", *back)

    def fits(self, model: Any) -> bool:
        """Is this still the program of the model, with the same data?"""
        same = lambda d, a: not hasattr(d, "get_value") or np.array_equal(d.get_value(borrow=True), a)
        return self.signature == _signature(model) and all(same(d, a) for d, a in self.data.items())


def from_pymc(model: Any) -> PyMCModel:
    """A `pymc.Model` as a model over its unconstrained value variables.

    Arguments:  model: the context object (`with pm.Model() as model: ...`). Values of `pm.Data` are taken as they are
                now; they enter the compiled log density as arguments.
    Raises:     ModelError, which names the variables: discrete ones, none at all, minibatches.
    Cost:       a few seconds: PyTensor simplifies the graph before it is translated.
    Reference:  Abril-Pla et al. (2023), PyMC.  [abrilpla2023pymc]
    """
    pymc = _pymc()
    if not isinstance(model, pymc.Model):
        wrong, because = f"model is a {type(model).__name__}", "its variables are looked up in it"
        raise _refuse(wrong, because, "`with pymc.Model() as model: ...`, then from_pymc(model)")
    if not model.free_RVs:
        raise _refuse("the model has no free variables", "there is nothing to infer", "a variable without observed=")
    discrete = [model.values_to_rvs[v].name for v in model.discrete_value_vars]
    if discrete:
        because = "the latents here are real numbers, and logp has no gradient in integers"
        instead = "marginalise them (pymc_extras.marginalize, pm.Mixture); or a NumPyro model, which can enumerate them"
        raise _refuse(f"discrete free variables: {', '.join(discrete)}", because, instead)
    program = _PROGRAMS.get(model)
    if program is None or not program.fits(model):
        program = _PROGRAMS[model] = Program(pymc, model)
    shapes, data = _shapes(model), list(program.data.values())
    with jax.enable_x64(True):  # PyTensor's own precision
        zeros = [jax.ShapeDtypeStruct(s, default_float()) for s in shapes.values()]
        program.log_density.settle(zeros, lifted(data))
    return PyMCModel(program, shapes, data)


def _pymc() -> Any:
    try:
        import pymc  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        instead = 'pip install "jensen[pymc]"'
        raise _refuse("pymc is not installed", "the model is built with it", instead) from error
    return pymc


def _graphs(pymc: Any, model: Any) -> tuple[Any, list, list, dict, tuple[list, list]]:
    """(logp, logp of each observed element, free variables, deterministics) in the value variables, and
    (constrained placeholders, [value variables..., log |det dx/dz|]) in the constrained ones."""
    logp = model.logp()
    if _random(logp):
        because, instead = "the density would be another one at every call", "all the data, without pm.Minibatch"
        raise _refuse("the log density draws random numbers (pm.Minibatch?)", because, instead)
    elementwise = model.logp(vars=model.observed_RVs, sum=False) if model.observed_RVs else []
    values = model.replace_rvs_by_values(list(model.free_RVs))
    fixed = model.replace_rvs_by_values(list(model.deterministics)) if model.deterministics else []
    fixed = {v.name: g for v, g in zip(model.deterministics, fixed, strict=True) if not _random(g)}
    return logp, list(elementwise), values, fixed, _inverse(model)


def _inverse(model: Any) -> tuple[list, list]:
    import pytensor.tensor as tensor  # pyright: ignore[reportMissingImports]

    given = {v: v.type(v.name) for v in model.free_RVs}
    out, log_det = [], tensor.as_tensor(0.0)
    for v, x in given.items():
        transform = model.rvs_to_transforms[v]
        z = x if transform is None else transform.forward(x, *v.owner.inputs)
        if transform is not None:
            log_det = log_det + transform.log_jac_det(z, *v.owner.inputs).sum()
        out.append(z)
    observed = {v: model.rvs_to_values[v] for v in model.observed_RVs}
    return list(given.values()), replaced([*out, log_det], given | observed)


def _check_single(made: PyMCModel) -> None:
    """Raises ModelError if single precision changes the density or its gradient. PyMC's graphs are written for double:
    distances in a covariance function cancel, and a zero-sum variable must sum to zero within 1e-9."""
    rng = np.random.default_rng(0)
    scales = np.array([0.0, 0.5, 1.0], np.float32)
    z = {n: np.multiply.outer(scales, rng.standard_normal(s, np.float32)) for n, s in made.shapes}
    both = jax.jit(jax.vmap(jax.value_and_grad(made.log_density)))
    single = jax.device_get(both(z))
    with jax.enable_x64(True):
        double = jax.device_get(both({n: a.astype(float) for n, a in z.items()}))
    flat = lambda grad: np.concatenate([np.asarray(grad[n], float).reshape(len(scales), -1) for n, _ in made.shapes], 1)
    (value, slope), (exact, true_slope) = ((v, flat(g)) for v, g in (single, double))
    finite = np.isfinite(exact) & np.isfinite(true_slope).all(1)
    off = np.abs(value - exact) / np.maximum(1, np.abs(exact)), np.abs(slope - true_slope).max(1)
    allowed = 1e-3, 1e-3 + 0.05 * np.abs(true_slope).max(1)
    wrong = [np.where(finite, ~(o <= a), False).any() for o, a in zip(off, allowed, strict=True)]
    if any(wrong):
        what = " and ".join(n for n, w in zip(("the log density", "its gradient"), wrong, strict=True) if w)
        because = "PyMC's graph needs more than 7 digits: it cancels large numbers, or compares within 1e-9"
        raise _refuse(
            f"single precision changes {what}", because, "with jax.enable_x64(True): around from_pymc and fit"
        )


def _random(graph: Any) -> bool:
    """Does it draw random numbers?"""
    from pytensor.graph.traversal import graph_inputs  # pyright: ignore[reportMissingImports]
    from pytensor.tensor.random.type import RandomType  # pyright: ignore[reportMissingImports]

    return any(isinstance(v.type, RandomType) for v in graph_inputs([graph]))


def _data(graphs: list) -> dict[Any, np.ndarray]:
    """Shared variables, and large constants, with their values."""
    from pytensor.graph.traversal import graph_inputs  # pyright: ignore[reportMissingImports]
    from pytensor.tensor.type import TensorType  # pyright: ignore[reportMissingImports]

    found: dict[Any, np.ndarray] = {}
    for v in graph_inputs(graphs):
        shared = hasattr(v, "get_value")
        value = v.get_value() if shared else getattr(v, "data", None)
        if isinstance(v.type, TensorType) and value is not None and (shared or np.size(value) >= LARGE):
            found[v] = host(getattr(v, "name", None) or "a constant of the PyMC model", value, finite=False)
    return found


def _value(variable: Any) -> np.ndarray:
    """Of data: a constant, a shared variable, or what is computed of them."""
    if hasattr(variable, "get_value"):
        return np.asarray(variable.get_value())
    return np.asarray(variable.data if hasattr(variable, "data") else variable.eval())


def _signature(model: Any) -> tuple:
    """What a model is made of: it may have grown since."""
    variables = [*model.basic_RVs, *model.potentials, *model.deterministics]
    transforms = [model.rvs_to_transforms.get(v) for v in model.free_RVs]
    return tuple(map(id, [*variables, *model.value_vars, *transforms])), model.check_bounds


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    shapes = {v.name: tuple(model.rvs_to_values[v].type.shape) for v in model.free_RVs}
    if any(n is None for s in shapes.values() for n in s):
        point = model.initial_point()
        shapes = {v.name: np.shape(point[model.rvs_to_values[v].name]) for v in model.free_RVs}
    return shapes


def _floats(a: Any) -> Array:
    a = jnp.asarray(a)
    return a.astype(default_float()) if jnp.issubdtype(a.dtype, jnp.floating) else a


def _refuse(wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain("`from_pymc`", wrong, because, instead))
