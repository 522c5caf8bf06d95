"""Many estimates of the gradient of a mean, and how far their average is from an exact number."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree

from jensen.batch import Batch
from jensen.facts import Fact
from jensen.gradients import plans
from jensen.gradients.base import Parts, value_and_grad
from jensen.models import LogDensity
from jensen.objectives.base import AbstractObjective

Z_MAX = 5.2  # about 150 numbers, a level of 3e-5 (Bonferroni)
FAST = {"xla_backend_optimization_level": 0}  # compiling is what these tests cost


class Mean(AbstractObjective):
    """E f(z), f the log density: nothing of q is in the log-weight."""

    facts: ClassVar = frozenset({Fact.LINEAR})
    requires: ClassVar = ()
    sense: ClassVar = 1
    min_samples: ClassVar = 1

    def log_weight(self, model, latent, log_ratio, x):
        return model.log_density(latent, x)

    def reduce(self, log_w):
        return log_w.mean()

    def exact(self, model, q, x):
        return 0.0


def samples(gradient: Any, q: Any, fn: Any, n: int = 20_000, *, k: int = 1, objective: Any = None, seed: int = 0):
    """n estimates of the gradient in q's parameters, (n, parameters)."""
    shape = jax.tree.map(jnp.shape, q.sample(jr.key(0)))
    parts, objective = Parts(LogDensity(fn, shape), q, gradient), objective or Mean()

    def one(key):
        out = value_and_grad(key, parts, objective, plans.IID(), Batch(), (), n_samples=k)
        return objective.sense * -ravel_pytree(out.grads.family)[0]

    return np.asarray(jax.jit(jax.vmap(one), compiler_options=FAST)(jr.split(jr.key(seed), n)))


def z_scores(found: np.ndarray, exact: Any) -> np.ndarray:
    spread = found.std(0) / len(found) ** 0.5
    return np.abs(found.mean(0) - np.asarray(exact)) / np.maximum(spread, 1e-12)
