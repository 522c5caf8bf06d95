"""What a NumPyro model is made of: latents and their supports, data, plates. Found by tracing it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.distribution import Delta

from ...arrays import lifted
from ..supports import Site, encode
from .numpyro_run import Rows, bare, check_observed, in_scan, is_factor, is_masked, plate_dim, refuse


@dataclasses.dataclass(frozen=True)
class Structure:
    """The static half of a model: names, shapes and supports. Hashable: it keys the compilation cache.

    sites: latents shared by all rows.   local_sites: latents of each row.   nesting: depth of plates.
    deterministic: those that are functions of the latents alone, not of a marginalised site.
    """

    sites: tuple[Site, ...]
    local_sites: tuple[Site, ...]
    observed: tuple[str, ...]
    enumerated: tuple[str, ...]
    deterministic: tuple[str, ...]
    rows: Rows | None
    nesting: int

    def floating(self) -> "Structure":
        """Binary latents reach the model as floats, so that it may be differentiated in them."""
        change = lambda sites: tuple(dataclasses.replace(s, integral=s.integral and s.kind != "binary") for s in sites)
        return dataclasses.replace(self, sites=change(self.sites), local_sites=change(self.local_sites))


@dataclasses.dataclass
class _Draft:
    """A latent whose support may still hold traced bounds (None in `leaves`)."""

    name: str
    shape: tuple[int, ...]
    axis: int | None
    leaves: list
    treedef: Any


def discover(fn: Callable, args: tuple, kwargs: dict) -> Structure:
    """Trace the model once; once more, compiled to the bounds of the supports only, if those are computed: in double
    precision, so that a bound is as exact as the data it is computed of."""
    found: dict[str, Any] = {}

    def look(key: Array, args: tuple, kwargs: dict) -> dict[str, list]:
        model = handlers.substitute(handlers.seed(fn, key), substitute_fn=start)
        sites = handlers.trace(model).get_trace(*args, **kwargs)
        rows = _subsampled(sites)
        found.update(rows=rows, **_sort(sites))
        drafts = {n: _draft(sites[n], rows) for n in found["latent"]}
        traced = {n: [a for a in d.leaves if isinstance(a, Tracer)] for n, d in drafts.items()}
        for draft in drafts.values():
            draft.leaves = [None if isinstance(a, Tracer) else a for a in draft.leaves]
        found.update(drafts=drafts, nesting=_nesting(sites, found["enumerated"]))
        found["deterministic"] = tuple(n for n, s in sites.items() if s["type"] == "deterministic")
        return traced

    traced = eqx.filter_eval_shape(look, jax.random.key(0), *lifted((args, kwargs), check=False))
    if any(traced.values()):
        with jax.enable_x64(True):
            compiled, given = eqx.filter_jit(look), lifted((args, kwargs))
            one, two = (jax.tree.map(np.asarray, compiled(jax.random.key(k), *given)) for k in (0, 1))
        _check_fixed(one, two)
        traced = one
    if not found["latent"]:
        because = "every site is observed or marginalised: there is nothing to infer"
        raise refuse(f"`from_numpyro({fn!r})`", "the model has no latents", because, "an unobserved numpyro.sample")
    sites = tuple(_finish(draft, traced[n]) for n, draft in found["drafts"].items())
    return Structure(
        sites=tuple(s for s in sites if s.axis is None),
        local_sites=tuple(s for s in sites if s.axis is not None),
        observed=found["observed"],
        enumerated=found["enumerated"],
        deterministic=found["deterministic"],
        rows=found["rows"],
        nesting=found["nesting"],
    )


def start(site: dict[str, Any]) -> Array | None:
    """A random point of a continuous support: improper priors cannot be sampled."""
    if site["type"] != "sample" or site["is_observed"] or site["fn"].support.is_discrete:
        return None
    transform, key = _transform(site), site["kwargs"].get("rng_key")
    shape = transform.inverse_shape(site["fn"].shape(site["kwargs"].get("sample_shape", ())))
    key = jax.random.key(0) if key is None else key
    return transform(jax.random.uniform(key, shape, minval=-2, maxval=2))


def _transform(site: dict[str, Any]):
    name, support = site["name"], site["fn"].support
    if isinstance(bare(site["fn"]), Delta):
        because, instead = "a point mass has no density", f'numpyro.deterministic("{name}", ...)'
        raise refuse(f"site `{name}`", "its distribution is a Delta", because, instead)
    try:
        if isinstance(support, type(constraints.complex)):
            raise NotImplementedError
        return biject_to(support)
    except NotImplementedError as e:
        wrong = f"no bijection from the unconstrained reals to its support `{support!r}` is known"
        instead = "an unconstrained variable, mapped by hand: v ~ Normal, x = v / norm(v) for a sphere"
        raise refuse(f"site `{name}`", wrong, "the families are distributions over unconstrained reals", instead) from e


def _subsampled(sites: dict[str, dict]) -> Rows | None:
    plates = {n: s["args"] for n, s in sites.items() if s["type"] == "plate"}
    plates = {n: (size, part) for n, (size, part) in plates.items() if part not in (None, size)}
    for name, (size, part) in plates.items():
        if part > size:
            because = "rows are drawn without repeats"
            raise refuse(f"plate `{name}`", f"subsample_size={part} of {size}", because, "subsample_size below size")
    if len(plates) > 1:
        names = ", ".join(f"`{n}`" for n in plates)
        because = "a minibatch is a set of rows, and one weight a row makes it unbiased"
        instead = "subsample_size on one of them, the others whole"
        raise refuse(f"plates {names}", "more than one is subsampled", because, instead)
    return next((Rows(name, *args) for name, args in plates.items()), None)


def _sort(sites: dict[str, dict]) -> dict[str, tuple[str, ...]]:
    """Names of the latent, observed and marginalised sites, after refusing what is not supported."""
    latent, observed, enumerated = [], [], []
    for name, site in sites.items():
        if site["type"] in ("param", "mutable"):
            _check_random(name, site, sites)
        if site["type"] != "sample":
            continue
        if site["is_observed"]:
            if not is_factor(site):
                check_observed(name, site)
                observed.append(name)
        elif site["fn"].support.is_discrete and site["infer"].get("enumerate") is not None:
            _check_enumerated(name, site)
            enumerated.append(name)
        else:
            latent.append(name)
    for name in latent + enumerated:
        by_obs_mask = name.endswith("_unobserved") and name.removesuffix("_unobserved") + "_observed" in observed
        if is_masked(sites[name]["fn"]) and (enumerated or not by_obs_mask):
            because = "a masked latent has no density: the posterior is improper there, and the evidence is wrong"
            instead = "the mask around the observed sites only"
            raise refuse(f"site `{name}`", "it is latent, and under a `mask`", because, instead)
    return {"latent": tuple(latent), "observed": tuple(observed), "enumerated": tuple(enumerated)}


def _check_random(name: str, site: dict[str, Any], sites: dict[str, dict]) -> None:
    """A network is fine if all its weights have priors: flax leaves then placeholders, equinox one site a weight."""
    n_weights = sum(map(eqx.is_array_like, jax.tree.leaves(site["value"])))
    inside = name.removesuffix("$params") + "/"
    n_random = sum(s["type"] == "sample" and n.startswith(inside) for n, s in sites.items())
    if site["type"] == "mutable" or (
        n_weights and not (isinstance(site["value"], eqx.Module) and n_random == n_weights)
    ):
        because = "a model is a joint density of random variables: nothing else is learned or changed"
        instead = f'a prior: numpyro.sample("{name}", dist.Normal(0, 1)); random_flax_module for networks'
        raise refuse(f"site `{name}`", f"it is a numpyro.{site['type']}", because, instead)


def _check_enumerated(name: str, site: dict[str, Any]) -> None:
    how, fn = site["infer"]["enumerate"], site["fn"]
    if how != "parallel":
        wrong, because = f"infer={{'enumerate': {how!r}}}", "the sum over its values is one array operation"
        raise refuse(f"site `{name}`", wrong, because, "infer={'enumerate': 'parallel'}")
    if not fn.has_enumerate_support:
        wrong = f"`{type(bare(fn)).__name__}` has no finite list of values"
        raise refuse(f"site `{name}`", wrong, "its values are summed over", "a Categorical over the values that matter")
    lower = getattr(fn.support, "lower_bound", 0)
    if isinstance(lower, Tracer) or np.any(np.asarray(lower) != 0):
        instead = f'k = numpyro.sample("{name}", a Categorical); then k + lower'
        raise refuse(f"site `{name}`", "its smallest value is not 0", "numpyro's enumeration counts from 0", instead)


def _nesting(sites: dict[str, dict], enumerated: tuple[str, ...]) -> int:
    """Depth of plates. Under enumeration every batch axis must be a plate: others would be taken for values."""
    samples = {n: s for n, s in sites.items() if s["type"] == "sample"}
    plates = {n: {f.dim for f in s["cond_indep_stack"]} for n, s in samples.items()}
    for name, site in samples.items():
        if not enumerated or in_scan(site):
            continue
        value = jnp.shape(site["value"])
        batch = jnp.broadcast_shapes(site["fn"].batch_shape, value[: len(value) - site["fn"].event_dim])
        if any(n > 1 and i - len(batch) not in plates[name] for i, n in enumerate(batch)):
            wrong = f"batch shape {batch} has an axis that is no plate, while `{enumerated[0]}` is marginalised"
            because = "axes left of the plates hold the enumerated values"
            raise refuse(f"site `{name}`", wrong, because, "numpyro.plate around it, or .to_event(1)")
    return -min((d for dims in plates.values() for d in dims), default=0)


def _draft(site: dict[str, Any], rows: Rows | None) -> _Draft:
    fn, shape = site["fn"], jnp.shape(site["value"])
    dim = None if rows is None else plate_dim(site, rows.plate)
    axis = None if dim is None else len(shape) - fn.event_dim + dim
    try:
        leaves, treedef = jax.tree.flatten(fn.support)
    except (NotImplementedError, AttributeError):
        leaves, treedef = [], fn.support  # a user's constraint that is no pytree
    return _Draft(site["name"], shape, axis, leaves, treedef)


def _check_fixed(one: dict[str, list], two: dict[str, list]) -> None:
    for name in one:
        if not all(np.array_equal(a, b) for a, b in zip(one[name], two[name], strict=True)):
            wrong = "its support depends on another latent, or on which rows are drawn"
            because = "one fixed bijection maps the unconstrained reals to the support"
            instead = "a fixed support, scaled: u ~ Uniform(0, 1), x = u * upper; or numpyro's TransformReparam"
            raise refuse(f"site `{name}`", wrong, because, instead)


def _finish(draft: _Draft, traced: list) -> Site:
    name, axis, found = draft.name, draft.axis, iter(traced)
    leaves = [next(found) if a is None else a for a in draft.leaves]
    if axis is not None:
        leaves = [_one_row(name, a, axis - len(draft.shape)) for a in leaves]
    is_tree = not isinstance(draft.treedef, constraints.Constraint)
    support = jax.tree.unflatten(draft.treedef, leaves) if is_tree else draft.treedef
    kind, shape, lower = _kind(name, support, draft.shape)
    shape = shape if axis is None else (*shape[:axis], *shape[axis + 1 :])
    return Site(name, tuple(int(n) for n in shape), kind, encode(support), lower, axis)


def _one_row(name: str, bound: Any, axis: int) -> Any:
    """The bound without its rows, which must agree."""
    if np.ndim(bound) < -axis:
        return bound
    first = np.take(np.asarray(bound), [0], axis)
    if (np.asarray(bound) != first).any():
        wrong, because = "its support differs from row to row of a subsampled plate", "the rows of a minibatch change"
        raise refuse(f"site `{name}`", wrong, because, "a variable of fixed support, scaled by the row's bound")
    return first


def _kind(name: str, support: constraints.Constraint, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], int]:
    """Kind, shape of the unconstrained value, and the smallest integer."""
    if not support.is_discrete:
        return "real", tuple(biject_to(support).inverse_shape(shape)), 0
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, type(constraints.boolean)):
        return "binary", shape, 0
    if isinstance(support, constraints.integer_interval):
        lower, upper = np.asarray(support.lower_bound), np.asarray(support.upper_bound)
        if (lower != lower.flat[0]).any() or (upper != upper.flat[0]).any():
            wrong, because = "its values differ from element to element", "categories are one array axis"
            raise refuse(f"site `{name}`", wrong, because, "a Categorical over all values, with probability 0 outside")
        return "category", (*shape, int(upper.flat[0] - lower.flat[0]) + 1), int(lower.flat[0])
    wrong = f"it is discrete, with support `{support!r}`: no finite list of values"
    because = "a family over it would need a parameter for each value"
    instead = (
        "a Categorical over the values that matter, marked infer={'enumerate': 'parallel'}; "
        "its sum by hand in numpyro.factor; or a continuous variable"
    )
    raise refuse(f"site `{name}`", wrong, because, instead)
