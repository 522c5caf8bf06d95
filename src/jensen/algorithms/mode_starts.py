"""Where a search for modes looks: near and far, by what is known so far."""

import numpy as np
from jaxtyping import Float

from ..tree import Layout
from .modes import Mode

KINDS = ("about 0", "about a mode", "between modes", "along coordinates", "related to a mode")


def starting_points(
    modes: list[Mode], known: np.ndarray, frame: np.ndarray, kind: np.ndarray, layout: Layout, rng: np.random.Generator
) -> Float[np.ndarray, "n D"]:
    """Far and near, each row by its kind, about the mode that `frame` names."""
    n, d = len(frame), modes[0].at.size
    at = np.stack([m.at for m in modes])[frame]
    sd = np.stack([m.gaussian.sd for m in modes])[frame]
    e, jitter = rng.standard_normal((n, d)), np.empty((n, d))
    for k in np.unique(frame):
        jitter[frame == k] = modes[k].gaussian.apply(e[frame == k]) - modes[k].at
    low = np.min([modes[k].at - 4 * modes[k].gaussian.sd for k in known], 0)
    high = np.max([modes[k].at + 4 * modes[k].gaussian.sd for k in known], 0)
    wide = (high - low) / 2 * rng.choice([1.0, 1.5, 3.0], n)[:, None]
    about_zero = e * 10 ** rng.uniform(-1, 2, (n, 1))
    about_mode = at + jitter * 2 ** rng.uniform(0, 7, (n, 1))
    between = (low + high) / 2 + wide * rng.uniform(-1, 1, (n, d))
    few = rng.random((n, d)).argsort(1).argsort(1) < rng.integers(1, 4, (n, 1))
    base = np.where(rng.random((n, 1)) < 0.3, 0.3 * e * np.minimum(1, sd), at + 0.3 * jitter)
    few_moved = base + few * rng.choice([-1, 1], (n, d)) * sd * 2 ** rng.uniform(1, 7, (n, d))
    other = modes[known[0]].at * 0 + np.stack([modes[k].at for k in rng.choice(known, n)])
    related = [
        -at + 0.5 * jitter,
        at + (other - np.roll(other, 1, 0)) * rng.uniform(-2, 2, (n, 1)) + 0.5 * jitter,
        np.stack([p[permutation(layout, rng)] for p in at]) + 0.3 * jitter,
        at + rng.choice([-1, 1], (n, 1)) * 2 ** rng.uniform(0, 6, (n, 1)) * sd + 0.3 * jitter,
    ]
    of_related = np.stack(related)[rng.integers(len(related), size=n), np.arange(n)]
    return np.stack([about_zero, about_mode, between, few_moved, of_related])[kind, np.arange(n)]


def permutation(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """Of the flat coordinates: the leading axes of all sites that are as long as one of them, in one new order (labels)."""
    index, first = np.arange(layout.size), np.cumsum([0, *layout.sizes])
    lengths = [s[0] for s in layout.shapes if s and s[0] > 1]
    if not lengths:
        return index
    order = rng.permutation(length := int(rng.choice(lengths)))
    for at, shape, size in zip(first, layout.shapes, layout.sizes, strict=False):
        if shape and shape[0] == length:
            index[at : at + size] = at + np.arange(size).reshape(length, -1)[order].reshape(-1)
    return index
