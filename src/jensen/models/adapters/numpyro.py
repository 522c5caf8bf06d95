"""NumPyro models: any model function, in unconstrained coordinates."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Var
from jaxtyping import Array, Float
from numpyro import handlers

from ...arrays import host, is_table, lifted, place
from ...batch import Batch
from ...errors import DataError, ModelError, explain
from ...facts import Fact
from ...function import Function
from ...program import Read, Traced
from ...tree import Frozen, default_float
from ..base import AbstractModel
from ..coordinates import Coordinates
from ..supports import Site
from . import numpyro_enumerate as enumerate_
from .numpyro_discover import Structure, discover, start
from .numpyro_run import Unobserve, check_values, explained, log_prob, refuse, setting, total
from .numpyro_support import check_supports

Latents = dict[str, Array]
Spec = dict[str, jax.ShapeDtypeStruct]


def _known_by_trace(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("this form of the model has a log density only")


_UNTRACEABLE = Function(_known_by_trace)


class NumPyroModel(AbstractModel):
    """A NumPyro model function and its arguments; made by `from_numpyro`.

    Definition: log p(z, x) = sum_sites s w log p(site) + sum_latents w log |det dx/dz|, constants included.
                s: the model's own `scale` handlers; w: the weight of the row, 1 outside of a subsampled plate. The
                Jacobian has no s: it belongs to the coordinates (numpyro scales it too).
    Latents:    continuous: the unconstrained value (`biject_to` of the support). Binary: 0. and 1. in float. Other
                finite discrete: one-hot in float on a last axis. Marked infer={"enumerate": "parallel"}: summed out.
                Of each row of a subsampled plate: `local_latents`, one row; in z they lead with the rows.
    Data:       arrays among the arguments are kept as they were given, and read in the precision in force.
    """

    fn: Function = eqx.field(static=True)
    args: Frozen[tuple]
    kwargs: Frozen[dict[str, Any]]
    structure: Structure = eqx.field(static=True)
    density: Traced | None
    plated: ClassVar[bool] = False

    def __init__(
        self, fn: Function, args: tuple, kwargs: dict[str, Any], structure: Structure, density: Traced | None = None
    ):
        self.fn, self.args, self.kwargs, self.structure = fn, Frozen(args), Frozen(kwargs), structure
        self.density = density

    @property
    def facts(self) -> frozenset:
        own = {Fact.DIFFERENTIABLE, Fact.TWICE_DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT}
        return frozenset(own if self.structure.rows is None else own | {Fact.MINIBATCH})

    @property
    def latents(self) -> Spec:
        return {s.name: s.spec() for s in self.structure.sites}

    @property
    def local_latents(self) -> Spec:
        """Of one row; empty without a subsampled plate."""
        return {s.name: s.spec() for s in self.structure.local_sites}

    @property
    def site_kinds(self) -> dict[str, str]:
        """Site -> "real", "binary" or "category"."""
        return {s.name: s.kind for s in self.structure.sites}

    @property
    def local_site_kinds(self) -> dict[str, str]:
        return {s.name: s.kind for s in self.structure.local_sites}

    @property
    def relaxable(self) -> frozenset[str]:
        """The sites the model takes as floats: a derivative reaches them. Other discrete ones are given as integers."""
        return frozenset(s.name for s in self.sites if s.kind == "real" or not s.integral)

    @property
    def sites(self) -> tuple[Site, ...]:
        """All latents, the global ones first."""
        return self.structure.sites + self.structure.local_sites

    @property
    def rows(self) -> dict[str, Array] | None:
        """What is cut into minibatches: indices of the subsampled plate; None without one."""
        rows = self.structure.rows
        return None if rows is None else {"index": jnp.arange(rows.size)}

    @property
    def batch_size(self) -> int | None:
        """The plate's subsample_size."""
        return None if self.structure.rows is None else self.structure.rows.batch_size

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites."""
        return self.structure.observed

    def _arguments(self, check: bool = True) -> tuple[tuple, dict[str, Any]]:
        """The model function's arguments, in the precision in force; unchecked where only shapes are looked at."""
        return lifted(self.args.value, "args", check=check), lifted(self.kwargs.value, "kwargs", check=check)

    @property
    def _plate(self) -> str | None:
        return None if self.structure.rows is None else self.structure.rows.plate

    def log_density(self, z: Latents, x: Batch | None = None) -> Float[Array, ""]:
        """log p(z, x) in nats. `x.rows["index"]`: which rows, any number of them; all, in order, without rows."""
        rows = self.structure.rows
        index = x.rows["index"] if rows is not None and x is not None and x.rows is not None else None
        weight = x.weight if rows is not None and x is not None else None
        args, kwargs = self._arguments()
        if self.density is not None:
            return self.density(z, index, weight, eqx.filter((args, kwargs), eqx.is_array))
        return self._log_density(z, index, weight, args, kwargs)

    def _log_density(self, z: Latents, index: Any, weight: Any, args: tuple, kwargs: dict) -> Float[Array, ""]:
        rows, plate = self.structure.rows, self._plate
        n_rows = 0 if rows is None else rows.size if index is None else index.shape[0]
        values, value = {}, jnp.zeros((), default_float())
        for site in self.sites:
            values[site.name], log_det = site.forward(z[site.name])
            value = value + jnp.sum(log_det if site.axis is None or weight is None else weight * log_det)
        nesting = self.structure.nesting
        with explained(self.fn, args, kwargs):
            model = setting(self.fn, values, plate, index, exact=not self.structure.enumerated)
            if not self.structure.enumerated:
                sites = handlers.trace(model).get_trace(*args, **kwargs)
                check_values(sites, values)
                return value + total(sites, rows, n_rows, weight)
            if rows is None:
                return value + enumerate_.log_joint(model, args, kwargs, nesting)
            return value + enumerate_.log_joint_of_rows(model, args, kwargs, nesting, rows, n_rows, weight)

    def twin(self) -> "NumPyroModel":
        fn, args, kwargs = self.fn.twin(), self.args.value, self.kwargs.value
        if fn is self.fn:
            return self
        with explained(self.fn, args, kwargs):
            now = discover(
                self.fn.twin(), args, kwargs
            )  # supports and shapes may have changed with what the function reads
        now = now.floating() if self.structure.floating() == self.structure else now
        now = dataclasses.replace(now, deterministic=self.structure.deterministic)
        if now != self.structure:
            return from_numpyro(self.fn.fn, *args, **kwargs).twin()
        return NumPyroModel(fn, args, kwargs, self.structure)

    def traced(self, xs: Sequence[Batch | None]) -> "NumPyroModel":
        args, kwargs = self._arguments()
        arrays, rest = eqx.partition((args, kwargs), eqx.is_array)
        read, own = self.fn.read or Read(), (v for v in jax.tree.leaves(rest) if isinstance(v, float))

        def made_of(fn: Function) -> Callable:
            own = NumPyroModel(fn, self.args.value, self.kwargs.value, self.structure)
            return lambda z, index, weight, arrays: own._log_density(z, index, weight, *eqx.combine(arrays, rest))

        forms = []
        for x in xs:
            given = self.structure.rows is not None and x is not None and x.rows is not None
            index, n = (x.rows["index"], x.rows["index"].shape[0]) if given else (None, None)
            z = jax.eval_shape(lambda n=n: self.init_z(n_rows=n))
            forms.append((z, index, x.weight if given else None, arrays))
        density = Traced.of(made_of, self.fn, forms, read._replace(numbers=read.numbers | frozenset(own)))
        return NumPyroModel(_UNTRACEABLE, args, kwargs, self.structure, density)

    def constrain(self, z: Latents) -> Latents:
        """Values in the user's coordinates, by the supports alone: `z` may hold some of the sites only."""
        return {s.name: s.constrain(z[s.name]) for s in self.sites if s.name in z}

    def unconstrain(self, x: Latents) -> tuple[Latents, Array | float]:
        """Inverse of `constrain`, and log |det dx/dz| summed over the sites."""
        return Coordinates(self.sites).unconstrain(x)

    def init_z(self, key: Array | None = None, n_rows: int | None = None) -> Latents:
        """Zeros; the first category. Latents of rows for `n_rows` of them (default: all)."""
        rows = self.structure.rows
        lead = () if rows is None else (rows.size if n_rows is None else n_rows,)
        return {s.name: s.start(() if s.axis is None else lead) for s in self.sites}

    def _values(self, z: Latents, sites: tuple[Site, ...]) -> Latents:
        return {s.name: s.forward(z[s.name])[0] for s in sites}

    def _run(self, fn: Callable, values: Latents, key: Array, args: tuple, kwargs: dict) -> dict[str, dict]:
        """Trace of one run on all rows, in order; sites without a value are drawn with `key`."""
        with explained(self.fn, args, kwargs):
            model = handlers.seed(setting(fn, values, self._plate, None), key)
            sites = handlers.trace(model).get_trace(*args, **kwargs)
            check_values(sites, values)
        return sites

    def deterministics(self, z: Latents) -> Latents:
        """The `numpyro.deterministic` sites, on all rows. Those that depend on a marginalised site are left out."""
        values = self._values(z, self.sites)
        sites = self._run(self.fn, values, jax.random.key(0), *self._arguments())
        return {n: jnp.asarray(sites[n]["value"]) for n in self.structure.deterministic}

    def predict(self, key: Array, z: Latents, args: tuple | None = None, kwargs: dict | None = None) -> Latents:
        """One draw of the observed sites given the latents, on all rows: posterior predictive if z is a posterior draw.

        args, kwargs: replace the model's own (one given, the other stays). Latents of rows are then drawn anew from
                      their prior: the new rows are not the old ones.
        """
        new = args is not None or kwargs is not None
        own_args, own_kwargs = self._arguments()
        new_args = own_args if args is None else lifted(checked("args", tuple(args)), "args")
        new_kwargs = own_kwargs if kwargs is None else lifted(checked("kwargs", dict(kwargs)), "kwargs")
        values = self._values(z, self.structure.sites if new else self.sites)
        sites = self._run(Unobserve(self.fn), values, key, new_args, new_kwargs)
        return {n: sites[n]["value"] for n in self.structure.observed if n in sites}

    def observations(self, z: Latents) -> Latents:
        """The values of the observed sites."""
        values = self._values(z, self.sites)
        sites = self._run(self.fn, values, jax.random.key(0), self.args.value, self.kwargs.value)
        return {n: sites[n]["value"] for n in self.structure.observed}

    def log_likelihood(self, z: Latents) -> Latents:
        """Observed site -> log p(x_i | latents) of each element, on all rows, unscaled; marginalised sites are summed
        out. Factors are not in it.

        Raises:  ModelError where a marginalised site ties elements together.
        """
        (args, kwargs), structure = self._arguments(), self.structure
        values = self._values(z, self.sites)
        if structure.enumerated:
            model = setting(self.fn, values, self._plate, None, exact=False)
            return enumerate_.log_likelihood(model, args, kwargs, structure.nesting, structure.observed)
        sites = self._run(self.fn, values, jax.random.key(0), args, kwargs)
        return {n: log_prob(sites[n]) for n in structure.observed}


def from_numpyro(model: Callable, /, *args, **kwargs) -> NumPyroModel:
    """A NumPyro model function, called with these arguments, as a model over unconstrained latents.

    Arguments:  model: the function with `numpyro.sample` sites.   args, kwargs: its arguments. Arrays, of whatever
                library, and tables are data: they are kept in their own dtype, and enter the compiled log density as
                arguments. All else (ints, None, strings) is static.
    Raises:     ModelError, which names the site, for what cannot be inferred; DataError, which names the argument.
    Example:    >>> import numpy as np, numpyro, numpyro.distributions as dist
                >>> def model(y):
                ...     scale = numpyro.sample("scale", dist.HalfNormal(1.0))
                ...     with numpyro.plate("rows", len(y)):
                ...         numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
                >>> from_numpyro(model, np.array([0.3, -1.2])).site_kinds
                {'scale': 'real'}
    """
    if not callable(model):
        because, instead = "it is run to find the sites", "from_numpyro(model, data, ...) with the function first"
        raise refuse("`from_numpyro(model)`", f"model is a {type(model).__name__}", because, instead)
    fn, args, kwargs = Function(model), checked("args", args), checked("kwargs", kwargs)
    twin = fn.twin()
    with explained(fn, args, kwargs):
        structure = discover(twin, args, kwargs)
        check_supports(twin, args, kwargs, start)
    if structure.enumerated:
        enumerate_.require_funsor(structure.enumerated)

    def build(structure: Structure) -> NumPyroModel:
        made = _settled(NumPyroModel(twin, args, kwargs, structure))
        return NumPyroModel(fn, args, kwargs, made.structure)

    if structure.floating() == structure:
        return build(structure)
    try:
        return build(structure.floating())
    except ModelError:  # the model indexes with a binary latent, or negates it: integers then
        return build(structure)


def _settled(model: NumPyroModel) -> NumPyroModel:
    """The log density is a scalar; deterministic sites that a marginalised site reaches are dropped."""
    n = model.batch_size
    batch = Batch() if n is None else Batch({"index": jnp.arange(n)}, jnp.ones(n))
    out = eqx.filter_eval_shape(lambda m, z: m.log_density(z, batch), model, model.init_z(n_rows=n))
    if out.shape != ():
        asked, because = f"the log density of `{model.fn!r}`", "log p(z, x) of one latent is one number"
        raise refuse(asked, f"it has shape {out.shape}", because, "numpyro.plate around batch axes")
    if not (model.structure.enumerated and model.structure.deterministic):
        return model
    fixed = _independent_of_chance(model)
    structure = dataclasses.replace(model.structure, deterministic=fixed)
    return NumPyroModel(model.fn, model.args.value, model.kwargs.value, structure)


def _independent_of_chance(model: NumPyroModel) -> tuple[str, ...]:
    """Deterministic sites that no random key reaches, once the latents are given: read off the program."""
    values, names = model._values(model.init_z(), model.sites), model.structure.deterministic

    def run(key: Array) -> list:
        sites = model._run(model.fn, values, key, *model._arguments(check=False))
        return [sites[n]["value"] for n in names]

    program = jax.make_jaxpr(run)(jax.random.key(0)).jaxpr
    reached, by_chance = set(program.invars), lambda v: isinstance(v, Var) and v in reached
    for step in program.eqns:
        if any(map(by_chance, step.invars)):
            reached.update(step.outvars)
    return tuple(n for n, v in zip(names, program.outvars, strict=True) if not by_chance(v))


def checked(label: str, tree: Any) -> Any:
    """Arguments of a model function: tables as host arrays, checked; numpy scalars as Python numbers; the rest as it is,
    if it can be a cache key. Raises: DataError, which names the argument."""
    return jax.tree_util.tree_map_with_path(lambda path, a: _leaf(place(label, path), a), tree, is_leaf=is_table)


def _leaf(name: str, a: Any) -> Any:
    if isinstance(a, np.generic) and not isinstance(a, np.longdouble):
        return a.item()
    if isinstance(a, Tracer) or (isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.extended)):
        return a
    if is_table(a):
        return host(name, a)
    try:
        hash(a)
    except TypeError as e:
        wrong, because = f"it is a {type(a).__name__}, neither array nor hashable", "static arguments are cache keys"
        raise DataError(explain(f"`{name}`", wrong, because, "an array: np.asarray(...)")) from e
    return a
