"""Boltzmann machines in layers: energy, conditionals, Gibbs sampling; the restricted one (RBM).

Layers 0 (visible), 1, ..., L are joined to their neighbours only, so that all even layers are independent given all odd
ones, and the other way round. The two halves are what everything here is written in: `half` 0 is the tuple of layers
0, 2, ..., `half` 1 of 1, 3, ...; each an array of rows (n, units), so that all products are two-dimensional.
"""

import itertools
import math
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError, OptionError, explain
from ..process import ready
from ..tree import default_float
from .units import AbstractUnits, Binary, units_of

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

Half = tuple[Float[Array, "n d"], ...]
SPREAD = 0.01  # sd of starting weights
MOST_STATES = 2**20


class AbstractBoltzmann(eqx.Module):
    """p(x_0, ..., x_L) = exp(-E) / Z,  -E = sum_l [t(x_l) . b_l - base(x_l)] + sum_l t(x_l) W_l t(x_{l+1}).

    units:   of each layer, the visible one first; all but that are Binary.
    weights: W_l, (units of l, units of l + 1).   biases: b_l.
    gains:   (up, down), by which input from below and above is multiplied: (1, 1) but in greedy pre-training.
    """

    default_method: ClassVar[str] = "pcd"
    units: AbstractVar[tuple[AbstractUnits, ...]]
    weights: AbstractVar[tuple[Float[Array, "a b"], ...]]
    biases: AbstractVar[tuple[Float[Array, " a"], ...]]
    gains: AbstractVar[tuple[float, float]]

    @property
    def n_visible(self) -> int:
        return self.units[0].size

    def half(self, half: int) -> range:
        """The layers of a half."""
        return range(half, len(self.units), 2)

    # ---- energy -----------------------------------------------------------------------------------------------
    def log_weight(self, even: Half, odd: Half) -> Float[Array, " n"]:
        """-E of rows, nats; at means of independent units: the expected one."""
        x = self._woven(even, odd)
        t = [u.statistic(a) for u, a in zip(self.units, x, strict=True)]
        own = [a @ b - u.base(v) for u, a, b, v in zip(self.units, t, self.biases, x, strict=True)]
        links = [((t[i] @ w) * t[i + 1]).sum(-1) for i, w in enumerate(self.weights)]
        return sum(own[1:] + links, own[0])

    def energy(self, even: Half, odd: Half) -> Float[Array, " n"]:
        """E of rows, nats."""
        return -self.log_weight(even, odd)

    def _woven(self, even: Half, odd: Half) -> list[Array]:
        return [(even, odd)[layer % 2][layer // 2] for layer in range(len(self.units))]

    def log_marginal(self, kept: Half, half: int) -> Float[Array, " n"]:
        """log of exp(-E) summed over the other half, nats: log p of this half up to log Z."""
        own = self.own(kept, half, self.biases)
        return own + self.summed(self.fields(kept, 1 - half), 1 - half)

    def own(self, x: Half, half: int, biases: tuple[Array, ...]) -> Float[Array, " n"]:
        """What a half's biases and bases add to -E."""
        layers = zip(self.half(half), x, strict=True)
        parts = [self.units[i].statistic(a) @ biases[i] - self.units[i].base(a) for i, a in layers]
        return sum(parts[1:], parts[0])

    def summed(self, fields: Half, half: int) -> Float[Array, " n"]:
        """log of a half's sum over its states, given its fields."""
        parts = [self.units[i].log_partition(f).sum(-1) for i, f in zip(self.half(half), fields, strict=True)]
        return sum(parts[1:], parts[0])

    # ---- conditionals -----------------------------------------------------------------------------------------
    def inputs(self, other: Half, half: int) -> Half:
        """What reaches the layers of a half from the other half: a field less its bias."""
        t = {i: self.units[i].statistic(a) for i, a in zip(self.half(1 - half), other, strict=True)}
        up, down = self.gains

        def into(layer: int) -> Array:
            parts = [up * (t[layer - 1] @ self.weights[layer - 1])] if layer else []
            parts += [down * (t[layer + 1] @ self.weights[layer].T)] if layer + 1 in t else []
            return sum(parts[1:], parts[0])

        return tuple(into(layer) for layer in self.half(half))

    def fields(self, other: Half, half: int) -> Half:
        """The fields of a half's layers given the other half."""
        return tuple(self.biases[i] + a for i, a in zip(self.half(half), self.inputs(other, half), strict=True))

    def means_at(self, fields: Half, half: int) -> Half:
        return tuple(self.units[i].mean(f) for i, f in zip(self.half(half), fields, strict=True))

    def means(self, other: Half, half: int) -> Half:
        """E of a half's layers given the other half: the conditional probabilities."""
        return self.means_at(self.fields(other, half), half)

    def draw(self, key: Array, means: Half, half: int) -> Half:
        """A half's layers, drawn given their means."""
        keys = jr.split(key, len(means))
        return tuple(self.units[i].draw(k, m) for i, k, m in zip(self.half(half), keys, means, strict=True))

    def gibbs(self, key: Array, odd: Half, n_steps: int | Array = 1) -> tuple[Half, Half]:
        """(even, odd) after so many sweeps of block Gibbs sampling from the odd layers, each even first."""

        def sweep(i: Array, state: tuple[Half, Half]) -> tuple[Half, Half]:
            k0, k1 = jr.split(jr.fold_in(key, i))
            even = self.draw(k0, self.means(state[1], 0), 0)
            return even, self.draw(k1, self.means(even, 1), 1)

        start = tuple(jnp.zeros((len(odd[0]), self.units[i].size), odd[0].dtype) for i in self.half(0))
        return jax.lax.fori_loop(0, n_steps, sweep, (start, odd))

    def at_random(self, key: Array, n: int, half: int) -> Half:
        """A half's layers with no input, n rows."""
        fields = tuple(jnp.broadcast_to(self.biases[i], (n, self.units[i].size)) for i in self.half(half))
        return self.draw(key, self.means_at(fields, half), half)

    # ---- small machines ---------------------------------------------------------------------------------------
    def n_states(self, half: int) -> int | float:
        """Joint states of a half; inf where its units are not countable."""
        units = [self.units[i] for i in self.half(half)]
        if any(u.states is None for u in units):
            return float("inf")
        return math.prod((u.states or 1) ** (u.size // u.group) for u in units)  # exact: floats would overflow

    def all_states(self, half: int, index: np.ndarray) -> Half:
        """The states of a half with these numbers, of 0, ..., n_states - 1."""
        index, out = np.asarray(index, np.int64), []
        for i in self.half(half):
            u, columns = self.units[i], []
            for _ in range(u.size // u.group):
                index, digit = np.divmod(index, u.states or 1)
                columns.append(digit[:, None] if u.group == 1 else np.eye(u.group)[digit])
            out.append(jnp.asarray(np.concatenate(columns, 1), default_float()))
        return tuple(out)


class RBM(AbstractBoltzmann):
    """Restricted Boltzmann machine (RBM), harmonium: one layer of binary causes, no links within a layer.

    Definition: -E(v, h) = t(v) . b - base(v) + h . c + t(v) W h.
    Arguments:  n_visible, n_hidden: units.
                visible: "bernoulli"; "gaussian" (real columns, variances learned); "categorical" (one-hot groups of
                    n_categories columns each).
                mean, variance: of the data's columns, from which visible biases (and variances) start.   seed: of the
                starting weights, N(0, 0.01^2).
    Cost:       a pass up or down: one product of (rows, n_visible) and (n_visible, n_hidden).
    Raises:     OptionError for a width that is no count, or unknown units.
    Reference:  Smolensky (1986); Hinton (2002), products of experts.  [hinton2002training]
    """

    units: tuple[AbstractUnits, ...]
    weights: tuple[Float[Array, "v h"], ...]
    biases: tuple[Float[Array, " a"], ...]
    gains: tuple[float, float] = eqx.field(static=True, default=(1.0, 1.0))

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        visible: str | AbstractUnits = "bernoulli",
        *,
        n_categories: int | None = None,
        mean: Any = None,
        variance: Any = None,
        seed: int = 0,
        gains: tuple[float, float] = (1.0, 1.0),
    ):
        made = layered((n_visible, n_hidden), visible, n_categories, mean, variance, seed, "RBM")
        self.units, self.weights, self.biases = made
        self.gains = gains

    def free_energy(self, v: Float[Array, "n v"]) -> Float[Array, " n"]:
        """F(v) = -log sum_h exp(-E(v, h)), nats: log p(v) = -F(v) - log Z."""
        return -self.log_marginal((v,), 0)

    def hidden_free_energy(self, h: Float[Array, "n h"]) -> Float[Array, " n"]:
        """-log sum_v exp(-E(v, h)), nats: log p(h) = -hidden_free_energy(h) - log Z."""
        return -self.log_marginal((h,), 1)

    def hidden_given(self, v: Float[Array, "n v"]) -> Float[Array, "n h"]:
        """p(h = 1 | v): exact, since hidden units are independent given v."""
        return self.means((v,), 1)[0]

    def visible_given(self, h: Float[Array, "n h"]) -> Float[Array, "n v"]:
        """E[v | h]."""
        return self.means((h,), 0)[0]

    def most_probable_hidden(self, v: Float[Array, "n v"]) -> Float[Array, "n h"]:
        """argmax_h p(h | v): the MAP, each unit by itself."""
        return (self.fields((v,), 1)[0] > 0).astype(v.dtype)


@ready()
def layered(
    widths: tuple[int, ...],
    visible: str | AbstractUnits,
    n_categories: int | None,
    mean: Any,
    variance: Any,
    seed: int,
    name: str,
) -> tuple[Any, Any, Any]:
    """(units, weights, biases) at their starting values."""
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in widths):
        asked, because = f"`{name}` with layers of {widths} units", "they count units"
        raise OptionError(explain(asked, "a width is not a positive whole number", because, f"{name}(784, 500)"))
    first = units_of(visible, int(widths[0]), n_categories)
    if first.size != widths[0]:
        asked, wrong = f"`{name}` of {widths[0]} visible units", f"`visible` has {first.size}"
        raise ModelError(explain(asked, wrong, "one width is meant", "the same number twice"))
    if variance is not None and hasattr(first, "log_variance"):
        first = eqx.tree_at(lambda u: u.log_variance, first, type(first)(first.size, variance).log_variance)  # type: ignore
    units = (first, *(Binary(int(n)) for n in widths[1:]))
    rng, f = np.random.default_rng(seed), default_float()
    pairs = itertools.pairwise(widths)
    weights = tuple(jnp.asarray(SPREAD * rng.standard_normal(pair), f) for pair in pairs)
    start = jnp.zeros(widths[0], f) if mean is None else first.bias_of(np.asarray(mean, np.float64))
    return units, weights, (start, *(jnp.zeros(n, f) for n in widths[1:]))
