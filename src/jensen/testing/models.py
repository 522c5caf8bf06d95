"""Checks of a model of one's own."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ..batch import Batch
from ..facts import Fact
from ..models.base import AbstractModel, computes_nothing, unconstrained
from ..models.coerce import as_model
from ..tree import Layout
from .base import CLOSE, hold

MOST_ROWS = 50  # each evaluated by itself


def check_model(model: Any, data: Any = None, *, seed: int = 0) -> None:
    """That a model is one that everything else can rely on.

    Checks:     its log density is a finite number at some point, the same when compiled and when mapped, and differentiable
                where it says so, with the derivative that differences find; `constrain` and `unconstrain` are inverse, with the
                log Jacobian that differentiation finds; the log density of minibatches has that of all rows as its mean, where
                it says so.
    Arguments:  model, data: as for `fit`.
    Raises:     Wrong; ModelError and DataError as `fit`.
    """
    with jax.enable_x64(True):
        found, rows = as_model(model, data)
        name, key = type(found).__name__, jr.key(seed)
        layout = Layout(found.latents)
        x = _first(found, rows)
        density = lambda u: found.log_density(layout.unravel(u), x)
        points = 0.5 * jr.normal(key, (8, layout.size))
        values = np.asarray([density(u) for u in points])
        usable = np.isfinite(values)
        asked = f"log_density of `{name}`"
        instead = "a log density that is finite on an open set of unconstrained latents"
        hold(usable.any(), asked, "it is finite at none of 8 points near 0", "a fit starts there", instead)
        mapped = np.asarray(jax.jit(jax.vmap(density))(points))
        because, instead = "fits run compiled and mapped", "a pure function of its arguments in jax.numpy"
        same = np.allclose(mapped[usable], values[usable], rtol=CLOSE, atol=CLOSE)
        hold(same, asked, "compiled and mapped it gives other values", because, instead)
        if Fact.DIFFERENTIABLE in found.facts:
            _check_gradient(asked, density, points[usable][0], key)
        _check_coordinates(found, name, layout, points)
        if Fact.MINIBATCH in found.facts and rows is not None and not found.plated:
            _check_minibatches(found, name, rows, layout.unravel(points[usable][0]))


def _first(model: AbstractModel, rows: Any) -> Any:
    return jax.tree.map(lambda a: a[0], rows) if model.plated else Batch(rows, None)


def _check_gradient(asked: str, density: Any, u: Any, key: Any) -> None:
    way = jr.normal(key, u.shape)
    along = float(jax.grad(density)(u) @ way)
    h = 1e-5
    differences = float((density(u + h * way) - density(u - h * way)) / (2 * h))
    wrong = f"its derivative along a line is {along:.6g}, and differences give {differences:.6g}"
    because, instead = "it promises DIFFERENTIABLE", "no stop_gradient, rounding or branch on values; or no such fact"
    hold(abs(along - differences) <= 1e-4 * (1 + abs(along)), asked, wrong, because, instead)


def _check_coordinates(model: AbstractModel, name: str, layout: Layout, points: Any) -> None:
    if computes_nothing(model):
        return
    for u in points[:3]:
        value = model.constrain(layout.unravel(u))
        back, log_det = unconstrained(model, value)
        asked, because = f"`{name}.unconstrain(constrain(z))`", "densities of values are found through it"
        wrong = f"it is {np.round(layout.ravel(back), 4)[:4]} ..., and z is {np.round(u, 4)[:4]} ..."
        same = np.allclose(layout.ravel(back), u, rtol=CLOSE, atol=CLOSE)
        hold(same, asked, wrong, because, "the inverse of `constrain`")
        values = Layout(jax.eval_shape(model.constrain, model.latents))
        if values.size == layout.size:
            jacobian = jax.jacfwd(lambda u: values.ravel(model.constrain(layout.unravel(u))))(u)
            exact = float(jnp.linalg.slogdet(jacobian)[1])
            wrong = f"it says log |det dx/dz| = {float(log_det):.6g}, and the Jacobian of `constrain` has {exact:.6g}"
            same = abs(float(log_det) - exact) <= 1e-5 * (1 + abs(exact))
            hold(same, f"`{name}.unconstrain`", wrong, because, "log |det dx/dz| summed over coordinates")


def _check_minibatches(model: AbstractModel, name: str, rows: Any, z: PyTree) -> None:
    n = len(jax.tree.leaves(rows)[0])
    if n > MOST_ROWS:
        return
    whole = float(model.log_density(z, Batch(rows, None)))
    some = lambda i: jax.tree.map(lambda a: a[i : i + 1], rows)
    each = [float(model.log_density(z, Batch(some(i), jnp.full(1, float(n))))) for i in range(n)]
    wrong = f"the mean over single rows, scaled up, is {np.mean(each):.6g}, and of all rows it is {whole:.6g}"
    instead = "log prior + sum of weight x log likelihood a row; or no such fact"
    same = abs(np.mean(each) - whole) <= 1e-6 * (1 + abs(whole))
    hold(same, f"log_density of `{name}` on minibatches", wrong, "it promises MINIBATCH", instead)
