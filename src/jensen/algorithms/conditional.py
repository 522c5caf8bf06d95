"""Maxima of a density in some coordinates, given the others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .laplace import STEP, hessians
from .target import Target

NEWTON = 12  # steps, at most
STILL = 1e-3  # of its standard deviations a mode may move in its last step
LIGHT = 1e-3  # damping, in diagonal curvatures, that is none
NEAR = 0.5  # the same, at which it is still a mode
FLATTEST = 1e-16  # curvature, of the largest: a flatter direction counts as one
SHORTER = 0.3 ** np.arange(4)[:, None]  # of a step


class Conditional(NamedTuple):
    """Modes of u_B given the rest: whole points, precisions of B there, log p, and whether the maximum was reached."""

    u: Float[np.ndarray, "K D"]
    precision: Float[np.ndarray, "K B B"]
    value: Float[np.ndarray, " K"]
    reached: Bool[np.ndarray, " K"]


def conditional_modes(
    target: Target,
    u: Float[np.ndarray, "K D"],
    b: Int[np.ndarray, " B"],
    scale: Float[np.ndarray, " D"],
    most: int = NEWTON,
) -> Conditional:
    """From u, by Newton in the coordinates `b`, in at most so many steps, damped (Levenberg and Marquardt) where none of some
    lengths of a step goes uphill.

    Cost:   2 D + 5 evaluations a point and step.   Raises: OutOfBudget.
    """
    k, d = u.shape
    u, steps, damping = u.copy(), np.repeat(scale[None], k, 0), np.zeros(k)
    for i in range(most):
        value, gradient = target(u)
        h = -hessians(target, u, STEP * steps)
        size = np.abs(np.diagonal(h, axis1=1, axis2=2))
        steps = 1 / np.sqrt(np.maximum(size, 1e-12 * size.max(1, keepdims=True)))
        precision = positive(h[:, b[:, None], b])
        whole = np.linalg.solve(precision, gradient[:, b, None])[..., 0]
        far = np.sqrt(np.einsum("ki,kij,kj->k", whole, precision, whole))
        usable = np.isfinite(value)
        if i and (far[usable] < STILL * np.sqrt(b.size)).all():
            break
        size = np.diagonal(precision, axis1=1, axis2=2)[..., None] * np.eye(b.size)
        move = np.linalg.solve(precision + damping[:, None, None] * size, gradient[:, b, None])[..., 0]
        trial = np.repeat(u[:, None], len(SHORTER), 1)
        trial[:, :, b] += move[:, None] * SHORTER
        gain = target.value(trial.reshape(-1, d)).reshape(k, -1)
        best = gain.argmax(1)
        better = gain[np.arange(k), best] > value - 1e-9 * np.abs(value)
        u = np.where(better[:, None], trial[np.arange(k), best], u)
        damping = np.where(better, np.where(damping > LIGHT, 0.1 * damping, 0.0), np.maximum(10 * damping, 0.1))
    return Conditional(u, precision, value, usable & (far < NEAR * np.sqrt(b.size)))


def positive(h: Float[np.ndarray, "K B B"]) -> np.ndarray:
    """Positive definite versions: eigenvalues of the scaled matrices, by their size."""
    size = np.abs(np.diagonal(h, axis1=1, axis2=2))
    top = size.max(1, keepdims=True)
    s = 1 / np.sqrt(np.maximum(size, np.where(top > 0, FLATTEST * top, 1.0)))
    values, vectors = np.linalg.eigh(h * s[:, :, None] * s[:, None])
    values = np.maximum(np.abs(values), 1e-10)
    return np.einsum("kij,kj,klj->kil", vectors, values, vectors) / s[:, :, None] / s[:, None]
