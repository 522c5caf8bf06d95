"""Checks of a plan and of a gradient estimator of one's own."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from scipy.stats import kstest

from ..errors import IncompatibleComposition, JensenError, explain
from ..facts import Fact
from ..families.discrete import Bernoulli
from ..families.mean_field import MeanField
from ..families.noise import StandardNormal, Uniform
from ..gradients import LeaveOneOut, Pathwise, ScoreFunction
from ..gradients.base import AbstractEstimator
from ..gradients.plans import AbstractPlan
from ..lab.lab import gradient_lab
from ..models.latent_variable import LatentVariable
from ..models.log_density import LogDensity
from .base import hold


def check_plan(plan: AbstractPlan, *, seed: int = 0) -> None:
    """That each draw of a plan has the law it was asked for, by Kolmogorov and Smirnov's test at the level 1e-6 a column, in
    the shape that was asked for, and not the same for two rows.

    Raises: Wrong.
    """
    name = type(plan).__name__
    laws = StandardNormal((2,)), Uniform(())
    draw = jax.jit(jax.vmap(lambda key: plan.draw(key, laws, (4, 3))))
    if Fact.FRESH not in plan.facts:
        return
    normal, uniform = draw(jr.split(jr.key(seed), 4000))
    shapes = normal.shape[1:], uniform.shape[1:]
    hold(
        shapes == ((4, 3, 2), (4, 3)), f"`{name}.draw`", f"shapes {shapes}", "draws lead, then the plate", "(K, *plate)"
    )
    for i in range(4):
        for column, law in ((normal[:, i, 0, 0], "norm"), (normal[:, i, 1, 1], "norm"), (uniform[:, i, 0], "uniform")):
            p = kstest(np.asarray(column), law).pvalue
            wrong = f"draw {i} has another law (p = {p:.2g})"
            hold(p > 1e-6, f"`{name}.draw`", wrong, "every estimate would be biased", "each draw marginally of the law")
    different = len(np.unique(np.asarray(uniform[0]))) == uniform[0].size
    hold(different, f"`{name}.draw`", "rows share noise", "their gradients would be correlated", "noise for each row")


def check_estimator(estimator: AbstractEstimator, *, seconds: float = 5.0, seed: int = 0) -> None:
    """That a gradient estimator that declares no bias has none, on the first of some small problems (a Gaussian, bits, a
    decoder) that the judge lets it have.

    Method:     `gradient_lab`, against exact gradients where states can be listed, else against jensen's own unbiased
                estimators, at the level .001.
    Raises:     Wrong; IncompatibleComposition where no problem takes it.
    """
    name, reasons = type(estimator).__name__, []
    bits = lambda b: 2.0 * (b * jnp.array([1.0, -1.0])).sum() - b[0] * b[1]
    normal = lambda z: -0.5 * ((z - jnp.array([1.0, -1.0])) ** 2).sum() - 0.1 * z[0] ** 4
    decoder = LatentVariable.mlp(jr.key(seed), 2, (4,), hidden=(3,))
    problems: list[tuple[Any, Any, Any]] = [
        (LogDensity(normal, 2), MeanField(), None), (LogDensity(bits, 2), Bernoulli(), None),
        (decoder, None, (jr.uniform(jr.key(seed), (20, 4)) < 0.5).astype(jnp.float32)),
    ]  # fmt: skip
    beside = {"pathwise": Pathwise(), "leave-one-out": LeaveOneOut(), "score": ScoreFunction()}
    for model, family, rows in problems:
        try:
            lab = gradient_lab(
                model,
                family,
                data=rows,
                estimators=beside | {"own": estimator},
                plans="IID",
                seconds=seconds,
                seed=seed,
                at=("start",),
            )
        except JensenError as error:
            reasons.append(str(error))
            continue
        own = [r for r in lab.readings if r.estimator == "own"]
        for reading in own:
            wrong = f"its mean is off from the gradient: {reading.bias}"
            holds = not (reading.declared_unbiased and reading.bias.seen)
            hold(
                holds,
                f"`{name}`",
                wrong,
                "it declares no bias",
                "the right mean; or unbiased = False, said in its docs",
            )
        if own:
            return
        reasons += [r.reason for r in lab.refused if r.estimator == "own"]
    raise IncompatibleComposition(
        explain(f"checking `{name}`", "no problem takes it", "; ".join(reasons[:2]), "other facts")
    )
