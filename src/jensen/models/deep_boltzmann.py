"""Deep Boltzmann machines: mean-field inference, its bound, and a network that starts it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .boltzmann import AbstractBoltzmann, layered
from .units import AbstractUnits

Means = tuple[Float[Array, "n d"], ...]
SWEEPS, MOST_SWEEPS, TOLERANCE = 10, 1000, 1e-4


class Recognition(eqx.Module):
    """One pass bottom-up, nu_l = sigmoid(nu_{l-1} R_l + r_l): where mean-field iteration starts."""

    weights: tuple[Float[Array, "a b"], ...]
    biases: tuple[Float[Array, " b"], ...]

    def logits(self, below: Float[Array, "n v"]) -> list[Float[Array, "n d"]]:
        """Log-odds of each layer given the visible statistic."""
        out = []
        for w, b in zip(self.weights, self.biases, strict=True):
            out.append(below @ w + b)
            below = jax.nn.sigmoid(out[-1])
        return out

    def mismatch(self, below: Float[Array, "n v"], target: Means) -> Float[Array, " n"]:
        """Cross-entropy between mean-field means and the network's, nats a row: what the network is trained by."""
        pairs = zip(self.logits(below), target, strict=True)
        # log(1 + e^l) - mu l, in the form that does not overflow
        parts = [(jnp.logaddexp(f, 0.0) - jax.lax.stop_gradient(m) * f).sum(-1) for f, m in pairs]
        return sum(parts[1:], parts[0])


class DBM(AbstractBoltzmann):
    """Deep Boltzmann machine (DBM): layers of binary causes, undirected links between neighbouring layers.

    Arguments:  layers: units of each layer, the visible one first.   visible, n_categories, mean, variance, seed: as `RBM`.
                recognition: a network trained along, which starts mean-field iteration (else one pass with doubled weights).
    Raises:     OptionError for a width that is no count, or unknown units.
    Reference:  Salakhutdinov and Hinton (2009); Salakhutdinov and Larochelle (2010) for `recognition`.
                [salakhutdinov2009dbm]
    """

    units: tuple[AbstractUnits, ...]
    weights: tuple[Float[Array, "a b"], ...]
    biases: tuple[Float[Array, " a"], ...]
    recognition: Recognition | None
    gains: tuple[float, float] = eqx.field(static=True, default=(1.0, 1.0))

    def __init__(
        self,
        layers: tuple[int, ...],
        visible: str | AbstractUnits = "bernoulli",
        *,
        n_categories: int | None = None,
        mean: Any = None,
        variance: Any = None,
        recognition: bool = False,
        seed: int = 0,
    ):
        made = layered(tuple(layers), visible, n_categories, mean, variance, seed, "DBM")
        self.units, self.weights, self.biases = made
        self.recognition = doubled(self.weights, self.biases) if recognition else None
        self.gains = (1.0, 1.0)

    def first_guess(self, v: Float[Array, "n v"]) -> Means:
        """Means of the hidden layers from one pass bottom-up."""
        net = self.recognition or doubled(self.weights, self.biases)
        return tuple(map(jax.nn.sigmoid, net.logits(self.units[0].statistic(v))))

    def mean_field(
        self,
        v: Float[Array, "n v"],
        start: Means | None = None,
        n_sweeps: int | None = None,
        tolerance: float | None = None,
    ) -> Means:
        """mu of q(h | v) = prod Bernoulli(mu), a fixed point of mu_l = sigmoid(b_l + mu_{l-1} W_{l-1} + mu_{l+1} W_l^T).

        Arguments:  start: means to go on from; None: `first_guess`.   n_sweeps: sweeps, odd layers then even ones; None:
                    10, or at most 1,000 with a tolerance.   tolerance: ends when no mean moves by more.
        Promises:   each half-sweep is the exact maximum over its layers, so `bound` never falls.
        """
        below = self.units[0].statistic(v) @ self.weights[0]  # the same in every sweep
        mu = self.first_guess(v) if start is None else tuple(start)
        most = n_sweeps or (SWEEPS if tolerance is None else MOST_SWEEPS)

        def body(c: tuple[Array, Means, Array]) -> tuple[Array, Means, Array]:
            i, mu, _ = c
            new = self._sweep(below, mu)
            moved = jnp.stack([jnp.abs(a - b).max() for a, b in zip(new, mu, strict=True)]).max()
            return i + 1, new, moved

        if tolerance is None:
            return jax.lax.fori_loop(0, most, lambda _, mu: self._sweep(below, mu), mu)
        go_on = lambda c: (c[0] < most) & (c[2] > tolerance)
        return jax.lax.while_loop(go_on, body, (jnp.zeros((), jnp.int32), mu, jnp.full((), jnp.inf, below.dtype)))[1]

    def _sweep(self, below: Float[Array, "n d"], mu: Means) -> Means:
        means, last = [None, *mu], len(mu)
        for layer in [*range(1, last + 1, 2), *range(2, last + 1, 2)]:
            field = self.biases[layer] + (below if layer == 1 else means[layer - 1] @ self.weights[layer - 1])
            if layer < last:
                field = field + means[layer + 1] @ self.weights[layer].T
            means[layer] = jax.nn.sigmoid(field)
        return tuple(means[1:])  # type: ignore[arg-type]

    def bound(self, v: Float[Array, "n v"], mu: Means | None = None) -> Float[Array, " n"]:
        """E_q[-E(v, h)] + H(q), nats a row: at most log p(v) + log Z.   mu: default, `mean_field` to tolerance."""
        mu = self.mean_field(v, tolerance=TOLERANCE) if mu is None else mu
        return self.log_weight(*halves(v, mu)) + sum(u.entropy(m) for u, m in zip(self.units[1:], mu, strict=True))


def halves(v: Float[Array, "n v"], mu: Means) -> tuple[Means, Means]:
    """(even, odd) of a visible layer and the hidden ones above it."""
    layers = (v, *mu)
    return layers[0::2], layers[1::2]


def doubled(weights: tuple[Array, ...], biases: tuple[Array, ...]) -> Recognition:
    """The network of doubled weights: what comes from above is stood in for by what comes from below."""
    last = len(weights) - 1
    return Recognition(tuple(w if i == last else 2 * w for i, w in enumerate(weights)), tuple(biases[1:]))


def composed(stack: list[AbstractBoltzmann], recognition: bool) -> DBM:
    """The DBM of RBMs trained one on the other, with `stack_gains`: a layer's bias is the mean of its two."""
    widths = (*(m.n_visible for m in stack), stack[-1].units[1].size)
    hidden = [np.asarray(m.biases[1]) for m in stack]
    above = [np.asarray(m.biases[0]) for m in stack[1:]]
    middle = [jnp.asarray(0.5 * (a + b), a.dtype) for a, b in zip(hidden[:-1], above, strict=True)]
    machine = DBM(widths, stack[0].units[0])
    weights, biases = tuple(m.weights[0] for m in stack), (stack[0].biases[0], *middle, stack[-1].biases[1])
    machine = eqx.tree_at(lambda m: (m.weights, m.biases), machine, (weights, biases))
    net = doubled(weights, biases) if recognition else None
    return eqx.tree_at(lambda m: m.recognition, machine, net, is_leaf=lambda a: a is None)


def stack_gains(layer: int, n: int) -> tuple[float, float]:
    """(up, down) of RBM number `layer` of n in a stack for a DBM: twice the input where the other neighbour is missing.

    Reference:  Salakhutdinov and Hinton (2009), section 3.1: the first RBM counts its visible layer twice, the last its
                hidden one, those between both.
    """
    return (2.0 if layer < n - 1 else 1.0), (2.0 if layer > 0 else 1.0)
