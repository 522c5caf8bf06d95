"""What is measured on draws of a q that the loop has fitted."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from ..compiled import key_for
from ..diagnostics.marginals import Marginals, Move, moved, of_draws
from ..diagnostics.psis import psis
from ..diagnostics.samples import diagnose_samples
from ..diagnostics.verdict import Diagnosis, diagnose_global
from ..function import Static
from ..models.base import AbstractModel
from ..models.coordinates import constrainer
from ..tree import Layout
from .drawing import constrained, draw
from .evaluate import gradients_of

MANY_DRAWS = 8  # times as many, without densities, where these settle what is reported


def reported_by(model: Any, z: Any, log_p: Any, log_q: Any, more: Callable[[int], Any]) -> tuple[Marginals, Move]:
    """Of what is reported, by q's own draws (many more of them where that settles it), and how far the weights move it."""
    shown = constrained(constrainer(model), z)
    names, s = Layout(jax.tree.map(lambda a: a.shape[1:], shown)).names(), len(log_p)
    x, log_w = _flat(shown), np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)
    move = moved(x, np.full(s, -math.log(s)), psis(log_w).log_weights, names)
    found = of_draws(x, names)
    if (found.undetermined > move.undetermined).any():
        found = of_draws(_flat(more(MANY_DRAWS * s)), names)
    return found.marked(move.undetermined), move


def constrained_draws(parts: Any, rows: Any, seed: int, n: int) -> Any:
    arrays, static = eqx.partition((parts.family, constrainer(parts.model)), eqx.is_array)
    return jax.device_get(draw(Static(static), arrays, jr.key_data(key_for(seed, "marginals")), n, rows, False))


def _flat(tree: Any) -> np.ndarray:
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(tree)]
    return np.concatenate([a.reshape(len(a), -1) for a in leaves], 1)


def global_diagnosis(
    z: Any, log_p: np.ndarray, log_q: np.ndarray, reported: tuple[Marginals, Move], common: dict
) -> Diagnosis:
    names = Layout(jax.tree.map(lambda a: a.shape[1:], z)).names()
    return diagnose_global(log_p, log_q, _flat(z), names, marginals=reported[0], move=reported[1], **common)


def diagnosis_by_draws(model: AbstractModel, rows: Any, z: Any, log_p: np.ndarray, common: dict) -> Diagnosis:
    """Of a family without log q: by Stein's identities."""
    grads, lead = gradients_of(model, z, rows), log_p.shape
    flat = lambda tree: np.concatenate(
        [np.asarray(a, np.float64).reshape(*lead, -1) for a in jax.tree.leaves(tree)], -1
    )
    names = Layout(jax.tree.map(lambda a: a.shape[len(lead) :], z)).names()
    return diagnose_samples(flat(z), None if grads is None else flat(grads), names, log_p=log_p, **common)
