"""Checks of a method of one's own."""

import math
import tempfile
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ..algorithms.method import AbstractMethod
from ..errors import JensenError, explain
from ..fit.fit import fit
from ..fit.persist import load
from ..methods.lookup import method_named
from ..models.latent_variable import LatentVariable
from ..models.log_density import LogDensity
from .base import MEAN, SD, Wrong, Z, hold


def check_method(method: Any, *, seed: int = 0) -> None:
    """That a method on one latent vector is one like jensen's.

    Checks:     it has a name; it refuses a model with a latent for each row, or fits it; the same seed gives the same draws;
                a budget of evaluations holds within a half more; a fit is saved and read again; and of five posteriors whose
                moments are known (correlated, skewed, long-tailed, a funnel, two modes) none is RELIABLE and wrong.
    Arguments:  method: an object, a class or a name.
    Raises:     Wrong.
    """
    made: AbstractMethod = method_named(method)
    name = made.label
    asked = f"method {name!r}"
    for label, (density, size, mean, sd) in _posteriors().items():
        model = LogDensity(density, size)
        found = fit(model, method=made, seed=seed, progress=False)
        if str(found.verdict) != "RELIABLE":
            continue
        marked = found.summary()["undetermined"].to_numpy()
        x = np.asarray(found.draws, float).reshape(-1, size)
        off = np.abs(x.mean(0) - mean) / sd > MEAN + Z / math.sqrt(len(x))
        wide = np.abs(x.std(0) / sd - 1) > SD + Z / math.sqrt(len(x))
        silent = ((off | wide) & (marked == "")).any()
        wrong = f"on a posterior that is {label} it is RELIABLE, with means {x.mean(0)[:3]} and sds {x.std(0)[:3]}"
        because = f"they are {np.broadcast_to(mean, size)[:3]} and {np.broadcast_to(sd, size)[:3]}"
        hold(not silent, asked, wrong, because, "a q that weights can judge: one with tails at least as heavy")
    _check_habits(made, asked, seed)


def _posteriors() -> dict[str, tuple[Any, int, Any, Any]]:
    """{what it is: (log density, dimension, means, sds)}."""
    root = np.array([[1.0, 0.0, 0.0], [0.9, 0.5, 0.0], [-1.0, 0.3, 2.0]])
    inverse = np.linalg.inv(root)
    mixture = lambda z: jnp.logaddexp(
        math.log(0.3) - 0.5 * jnp.sum((z + 3.0) ** 2), math.log(0.7) - 0.5 * jnp.sum((z - 3.0) ** 2)
    )
    funnel = lambda z: -0.5 * z[0] ** 2 - 0.5 * jnp.sum(z[1:] ** 2 * jnp.exp(-z[0])) - 0.5 * (z.size - 1) * z[0]
    gumbel = 0.5772156649015329
    return {
        "correlated": (lambda z: -0.5 * jnp.sum((inverse @ (z - 1.0)) ** 2), 3, 1.0, np.linalg.norm(root, axis=1)),
        "skewed": (lambda z: jnp.sum(-z - jnp.exp(-z)), 2, gumbel, math.pi / math.sqrt(6)),
        "long-tailed": (lambda z: -4.5 * jnp.sum(jnp.log1p(z**2 / 8)), 2, 0.0, math.sqrt(8 / 6)),
        "a funnel": (funnel, 4, 0.0, np.array([1.0, *[math.exp(0.25)] * 3])),
        "of two modes": (mixture, 2, 1.2, math.sqrt(1 + 9 - 1.2**2)),
    }


def _check_habits(made: AbstractMethod, asked: str, seed: int) -> None:
    density, size, *_ = _posteriors()["correlated"]
    model = LogDensity(density, size)
    first, second = (fit(model, method=made, seed=seed, progress=False) for _ in range(2))
    same = np.array_equal(first.sample(10), second.sample(10))
    hold(
        same, asked, "the same seed gives other draws", "results must be repeatable", "random numbers from `seed` alone"
    )
    limit = 400
    short = fit(model, method=made, seed=seed, progress=False, budget=f"evaluations:{limit}")
    used = short.options.get("evaluations", 0)
    instead = "evaluations by `target`, which counts them, and `target.budget.spent` looked at between steps"
    hold(used <= 1.5 * limit, asked, f"with a budget of {limit} it took {used}", "budgets hold", instead)
    with tempfile.TemporaryDirectory() as folder:
        again = load(first.save(folder), model=model)
    same = np.array_equal(again.sample(10), first.sample(10))
    hold(same, asked, "a saved fit gives other draws", "a fit is kept", "a q of `jensen.families` or Gaussians")
    decoder = LatentVariable.mlp(jr.key(seed), 2, (4,), hidden=(3,))
    rows = (jr.uniform(jr.key(seed), (20, 4)) < 0.5).astype(jnp.float32)
    try:
        fit(decoder, rows, method=made, seed=seed, progress=False, budget=f"evaluations:{limit}")
    except JensenError:
        return
    except Exception as error:
        wrong = f"on a model with a latent for each row it fails with {type(error).__name__}: {error}"
        raise Wrong(
            explain(asked, wrong, "what a method cannot do is refused", "`problems(task)` that says so")
        ) from error
