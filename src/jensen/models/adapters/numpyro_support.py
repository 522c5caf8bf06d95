"""Observed values and the supports of their distributions: what no posterior can explain is named before it is looked for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, MaskedDistribution, constraints

from ...errors import DataError, explain
from .numpyro_run import bare, in_scan, is_factor


def check_supports(fn: Callable, args: tuple, kwargs: dict, substituted: Callable) -> None:
    """Compares what is observed with the supports that depend on data alone; those that latents move are left to log p.

    substituted: gives latents their values.
    Cost:   a trace of the model, and the few operations that make the observed values and their supports.
    Raises: DataError that names the site, the first value outside, and where it stands.
    """
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = [i for i, a in enumerate(leaves) if isinstance(a, (jax.Array, np.ndarray))]
    found: dict[str, tuple] = {}

    def run(key: Any, *values: Any) -> list:
        given = list(leaves)
        for i, value in zip(arrays, values, strict=True):
            given[i] = value
        a, k = jax.tree.unflatten(treedef, given)
        sites = handlers.trace(handlers.substitute(handlers.seed(fn, key), substitute_fn=substituted)).get_trace(
            *a, **k
        )
        out = []
        for name, site in sites.items():
            inside = _inside(site) if site["type"] == "sample" and site["is_observed"] else None
            if inside is not None:
                found[name] = (len(out), str(site["fn"].support), type(bare(site["fn"])).__name__)
                out += [site["value"], inside]
        return out

    closed = jax.make_jaxpr(run)(jax.random.key(0), *(leaves[i] for i in arrays))
    for name, (at, support, law) in found.items():
        values = _without_latents(closed, (at, at + 1), [leaves[i] for i in arrays])
        if values is not None and not np.all(values[1]):
            raise DataError(_outside(name, np.asarray(values[0]), np.asarray(values[1]), support, law))


def _inside(site: dict[str, Any]) -> Any:
    """Which of the observed values lie in the support or on its edge; None where that cannot be told."""
    fn, value = site["fn"], site["value"]
    if is_factor(site) or in_scan(site) or (site["scale"] is not None and jnp.ndim(site["scale"]) > 0):
        return None
    try:
        inside = _holds(fn.support, jnp.asarray(value), bool(getattr(bare(fn), "_validate_args", False)))
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    while isinstance(fn, (ExpandedDistribution, Independent, MaskedDistribution)):
        if isinstance(fn, MaskedDistribution) and fn._mask is not True:
            return None  # values that do not count may be anything: those that do are left to log p
        fn = fn.base_dist
    return inside


def _holds(support: Any, value: Any, strict: bool) -> Any:
    """Elementwise; for a support of vectors or matrices, the same for all elements of one.

    strict: as log p has it where the distribution checks its values (-inf outside, and on an open edge); otherwise a density
    may well be finite on the edge, and a vector is left to log p.
    """
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if strict:
        inside = support(value)
        return inside.reshape(*inside.shape, *(1,) * support.event_dim) & jnp.ones(value.shape, bool)
    if isinstance(support, type(constraints.boolean)):
        return (value == 0) | (value == 1)
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if support.event_dim or isinstance(support, type(constraints.circular)):  # periodic
        return None
    whole = bool(support.is_discrete)
    inside = jnp.ones(value.shape, bool)
    inside = inside if lower is None else inside & (value >= lower)
    inside = inside if upper is None else inside & (value <= upper)
    return inside & (value == jnp.floor(value)) if whole else inside


def _without_latents(closed: Any, outputs: tuple[int, ...], values: list) -> list | None:
    """These outputs of a program, run as far as they need it; None where they need the random key: a latent."""
    program = closed.jaxpr
    made_by = {id(v): eqn for eqn in program.eqns for v in eqn.outvars}
    needed: dict[int, Any] = {}
    todo = [program.outvars[i] for i in outputs]
    while todo:
        v = todo.pop()
        if not isinstance(v, Var):
            continue
        if v is program.invars[0]:
            return None
        eqn = made_by.get(id(v))
        if eqn is not None and id(eqn) not in needed:
            needed[id(eqn)] = eqn
            todo += eqn.invars
    kept = [e for e in program.eqns if id(e) in needed]
    small = program.replace(eqns=kept, outvars=[program.outvars[i] for i in outputs])
    return jaxpr_as_fun(ClosedJaxpr(small, closed.consts))(jax.random.key(0), *values)


def _outside(name: str, value: np.ndarray, inside: np.ndarray, support: str, law: str) -> str:
    inside = np.broadcast_to(inside, np.broadcast_shapes(inside.shape, value.shape))
    value = np.broadcast_to(value, inside.shape)
    where = tuple(int(i) for i in np.argwhere(~inside)[0])
    index = f" at [{', '.join(map(str, where))}]" if where else ""
    n = int((~inside).sum())
    wrong = f"{n} of {value.size} values are outside of the support of its {law}, {support}; the first is {value[where]}{index}"
    because = "no value of the latents gives them a density"
    instead = f"data that {law} can produce, or a distribution that can produce these data"
    return explain(f"observed site `{name}`", wrong, because, instead)
