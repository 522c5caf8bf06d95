"""Contrastive divergence: learning Boltzmann machines from short, persistent or tempered Gibbs chains."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from ..batch import Batch
from ..errors import OptionError, explain
from ..models.annealed import AnnealedPath
from ..models.boltzmann import AbstractBoltzmann, Half
from ..tree import replaced, split_trainable
from .base import AbstractAlgorithm
from .descent import Optimiser
from .method import AbstractMethod, Variant
from .pseudo_likelihood import MONITORED, pseudo_log_likelihood

OFFSET_RATE = 0.01  # of the running means by which gradients are centred
ACTIVITY_RATE = 0.1  # of the running share of rows in which a hidden unit is on


class ContrastiveDivergence(AbstractAlgorithm, AbstractMethod):
    """Contrastive divergence (CD-k), persistent contrastive divergence (PCD, stochastic maximum likelihood), and either
    with parallel tempering.

    Definition: the gradient of log p(x) is E_{h|x}[-dE/dtheta] - E_{x,h}[-dE/dtheta]. The second mean is taken over Gibbs
                chains: k sweeps from the data (CD-k), or k sweeps on from where they were at the last step (persistent).
                Hidden layers next to drawn ones enter by their means. For a DBM the first is over the mean-field q.
    Arguments:  machine: what is trained; None: that of `fit`.
                k: sweeps a step.   persistent: chains go on.   n_chains: of them (persistent only); None: as many as rows.
                n_temperatures: of parallel tempering (1: none): as many copies of each chain on the path from independent
                    units to the machine, neighbours swapped at each step, of which the last one counts.
                weight_decay: L2 penalty's rate on weights.   sparsity: (target, strength): hidden biases are pulled to
                    where units are on in that share of rows.
                centred: offsets are subtracted from both sides of each product, running means over data. None: of a DBM,
                    whose upper units die otherwise.
                n_sweeps: of mean field (DBM).
    Returns:    (value) the pseudo log-likelihood of some rows of the batch, scaled to all data, nats: a monitor, not
                what is ascended. Of real visibles and DBMs: log p(x | hidden means).
    Bias:       CD-k: falls with k, none as k grows. PCD: as far as the chains lag behind the machine.
    Cost:       of an RBM, persistent: 3 products of (rows + chains) x visible x hidden, and 2 more of chains a sweep.
    Reference:  Hinton (2002), CD; Tieleman (2008), PCD; Desjardins et al. (2010), tempering; Montavon and Mueller (2012),
                Melchior, Fischer and Wiskott (2016), centring; Salakhutdinov and Hinton (2009), DBM.  [tieleman2008training]
    """

    thorough: ClassVar[bool] = True
    about: ClassVar[str] = "The machine learns what tells rows apart from what it dreams in short chains."
    fits: ClassVar[str] = "energy"
    takes: ClassVar[frozenset[str]] = frozenset(
        {"optimizer", "n_steps", "batch_size", "checkpoint", "checkpoint_seconds", "on_chunk"}
    )
    why_not: ClassVar[str] = "a Boltzmann machine is learned by contrastive divergence, without q"
    by_steps: ClassVar[bool] = True
    variants: ClassVar[dict[str, Variant]] = {
        "pcd": Variant("The machine learns what tells rows apart from what it dreams, in chains that go on.", {}),
        "cd": Variant(
            "The machine learns what tells rows apart from what it makes of them in a few steps.", {"persistent": False}
        ),
        "parallel-tempering": Variant(
            "As pcd, with copies of each chain at higher temperatures, which find their way between modes.",
            {"n_temperatures": 10},
        ),
    }
    machine: AbstractBoltzmann | None
    optimiser: Optimiser = eqx.field(static=True)
    k: int = eqx.field(static=True)
    persistent: bool = eqx.field(static=True)
    n_chains: int | None = eqx.field(static=True)
    n_temperatures: int = eqx.field(static=True)
    weight_decay: float = eqx.field(static=True)
    sparsity: tuple[float, float] | None = eqx.field(static=True)
    centred: bool | None = eqx.field(static=True)
    n_sweeps: int = eqx.field(static=True)

    def __init__(
        self,
        k: int = 1,
        persistent: bool = True,
        *,
        n_chains: int | None = None,
        n_temperatures: int = 1,
        weight_decay: float = 0.0,
        sparsity: tuple[float, float] | None = None,
        centred: bool | None = None,
        n_sweeps: int = 10,
        machine: AbstractBoltzmann | None = None,
        optimiser: Optimiser | None = None,
    ):
        for name, value in {
            "k": k,
            "n_chains": n_chains,
            "n_temperatures": n_temperatures,
            "n_sweeps": n_sweeps,
        }.items():
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise _refused(name, value, "it is not a positive whole number", "it is a count", f"{name}=1")
        if not weight_decay >= 0:
            because = "a negative penalty makes weights explode"
            raise _refused("weight_decay", weight_decay, "it is negative", because, "weight_decay=1e-4")
        if sparsity is not None and not (len(sparsity) == 2 and 0 < sparsity[0] < 1 and sparsity[1] >= 0):
            because = "it is a share of rows, and a strength"
            raise _refused("sparsity", sparsity, "it is no (target, strength)", because, "sparsity=(0.1, 0.01)")
        if n_temperatures > 1 and not persistent:
            because = "tempered chains must be long enough to swap"
            raise _refused("n_temperatures", n_temperatures, "the chains start anew", because, "persistent=True")
        self.k, self.persistent, self.n_chains, self.n_temperatures = k, persistent, n_chains, n_temperatures
        self.weight_decay, self.sparsity, self.centred = float(weight_decay), sparsity, centred
        self.n_sweeps, self.machine = n_sweeps, machine
        self.optimiser = Optimiser(optax.sgd(0.05)) if optimiser is None else optimiser

    def bind(self, machine: AbstractBoltzmann, optimiser: Optimiser) -> "ContrastiveDivergence":
        """The same algorithm for this machine."""
        centred = len(machine.weights) > 1 if self.centred is None else self.centred
        return replaced(self, machine=machine, optimiser=optimiser, centred=centred)

    def options(self):
        return {n: v for n, v in super().options().items() if n not in ("machine", "optimiser")}

    def run(self, task):
        return task.trained(self)

    @property
    def start(self) -> AbstractBoltzmann:
        if self.machine is None:
            because, instead = "it is bound by `fit`", "fit(RBM(784, 500), data, method=ContrastiveDivergence(...))"
            raise OptionError(explain("a step of `ContrastiveDivergence`", "it has no machine", because, instead))
        return self.machine

    # ---- the loop's interface ---------------------------------------------------------------------------------
    def init(self, key, batch):
        params, machine = split_trainable(self.start)[0], self.start
        n = (self.n_chains or len(batch.rows)) * self.n_temperatures
        chains = machine.at_random(key, n, 1) if self.persistent else ()
        zeros = tuple(jnp.zeros_like(b) for b in machine.biases)
        offsets = (machine.units[0].mean(machine.biases[0]), *(z + 0.5 for z in zeros[1:])) if self.centred else ()
        active = tuple(z + self.sparsity[0] for z in zeros[1:]) if self.sparsity else ()
        return params, self.optimiser.init(params), (chains, offsets, active)

    def noise(self, key, batch):
        return key

    def assemble(self, params: PyTree) -> AbstractBoltzmann:
        """The machine with these trained arrays."""
        return eqx.combine(params, split_trainable(self.start)[1])

    def step(self, noise, state, batch, scale):
        params, opt, carry = state
        machine = self.assemble(params)
        grads, carry, value = self.estimate(noise, machine, batch, carry)
        params, opt = self.optimiser.moved(jax.tree.map(jnp.negative, grads), opt, params, scale)
        return (params, opt, carry), value

    def parameters(self, state):
        return state[0]

    def with_parameters(self, state, parameters):
        return (parameters, *state[1:])

    # ---- one estimate -----------------------------------------------------------------------------------------
    def estimate(self, key: Array, machine: Any, batch: Batch, carry: PyTree) -> tuple[PyTree, PyTree, Array]:
        """(gradient that is ascended, a row's mean; new carry; value)."""
        chains, offsets, active = carry
        k_gibbs, k_odd, k_value = jr.split(key, 3)
        x = batch.rows.astype(machine.biases[0].dtype)
        share = jnp.full(len(x), 1 / len(x), x.dtype) if batch.weight is None else batch.weight / batch.weight.sum()
        up, guess = self._even_given(machine, x)
        if self.persistent:
            down, chains = self._continued(k_gibbs, machine, chains)
            n = len(x)
            fields = machine.fields(_stacked(up, down), 1)  # both phases in one product
            up_fields, down_fields = (tuple(f[part] for f in fields) for part in (slice(n), slice(n, None)))
            odd_up, odd_down = machine.means_at(up_fields, 1), machine.means_at(down_fields, 1)
            if self.n_temperatures == 1:
                chains = machine.draw(k_odd, odd_down, 1)
        else:
            up_fields = machine.fields(up, 1)
            odd_up = machine.means_at(up_fields, 1)
            down, _ = self._swept(k_gibbs, machine, machine.draw(k_odd, odd_up, 1), self.k)
            odd_down = machine.means(down, 1)
        weight = jnp.concatenate([share, jnp.full(len(down[0]), -1 / len(down[0]), x.dtype)])
        even, odd = _stacked(up, down), _stacked(odd_up, odd_down)
        grads = _gradient(machine, even, odd, weight, share, x, guess)
        means = _means_of(machine, up, odd_up, share)
        if self.centred:
            grads = centred(grads, offsets)
            offsets = jax.tree.map(lambda o, m: o + OFFSET_RATE * (m - o), offsets, means)
        grads, active = self._penalised(grads, machine, means, active)
        rows = min(MONITORED, len(x))
        value = pseudo_log_likelihood(machine, k_value, x[:rows], tuple(f[:rows] for f in up_fields))
        total = jnp.asarray(len(x), x.dtype) if batch.weight is None else batch.weight.sum()
        value = total * (share[:rows] * value).sum() / share[:rows].sum()
        return grads, (stop_gradient(chains), offsets, active), value

    def _even_given(self, machine: Any, x: Float[Array, "n v"]) -> tuple[Half, Half | None]:
        """The even layers in the positive phase, and the means that train the network that guessed them."""
        if len(machine.units) == 2:
            return (x,), None
        mu = machine.mean_field(x, n_sweeps=self.n_sweeps)
        return (x, *mu[1::2]), mu if machine.recognition is not None else None

    def _swept(self, key: Array, machine: AbstractBoltzmann, odd: Half, k: int) -> tuple[Half, Half]:
        """(even, odd) with k draws of the even layers and k - 1 of the odd ones between them."""
        k0, k1 = jr.split(key)
        if k > 1:
            _, odd = machine.gibbs(k1, odd, k - 1)
        return machine.draw(k0, machine.means(odd, 0), 0), odd

    def _continued(self, key: Array, machine: AbstractBoltzmann, chains: Half) -> tuple[Half, Half]:
        """(even layers that count, new state of the chains)."""
        if self.n_temperatures == 1:
            return self._swept(key, machine, chains, self.k)
        path = AnnealedPath(machine, independent(machine))
        even, chains = tempered(key, path, chains, self.k, self.n_temperatures)
        n = len(chains[0]) // self.n_temperatures
        return tuple(a[-n:] for a in even), chains

    def _penalised(self, grads: Any, machine: Any, means: Half, active: Half) -> tuple[Any, Half]:
        weights, biases = grads.weights, list(grads.biases)
        if self.weight_decay:
            weights = tuple(g - self.weight_decay * w for g, w in zip(weights, machine.weights, strict=True))
        if self.sparsity is not None:
            target, strength = self.sparsity
            active = tuple(a + ACTIVITY_RATE * (m - a) for a, m in zip(active, means[1:], strict=True))
            for i, a in enumerate(active):
                biases[i + 1] = biases[i + 1] + strength * (target - a)
        return eqx.tree_at(lambda g: (g.weights, g.biases), grads, (weights, tuple(biases))), active


def independent(machine: AbstractBoltzmann) -> tuple[Array, ...]:
    """Biases of the machine without links at the other end of a path: the visible ones, and 0 for hidden units."""
    return (machine.biases[0], *(jnp.zeros_like(b) for b in machine.biases[1:]))


def tempered(key: Array, path: AnnealedPath, odd: Half, k: int, n: int) -> tuple[Half, Half]:
    """k sweeps of chains at n temperatures, beta = 0 to 1 in blocks of rows, then swaps of neighbouring blocks.

    Swap (i, i + 1) with probability min(1, exp((beta_i - beta_{i+1}) (s_{i+1} - s_i))), s the slope of -E in beta; pairs
    that start at an even and at an odd i in turn, so that states cross the whole ladder.
    """
    m, n_chains = path.machine, len(odd[0]) // n
    beta = jnp.linspace(0.0, 1.0, n, dtype=odd[0].dtype)
    column = jnp.repeat(beta, n_chains)[:, None]

    def sweep(i: Array, state: tuple[Half, Half]) -> tuple[Half, Half]:
        k0, k1 = jr.split(jr.fold_in(key, i))
        even = path.draw(k0, m.inputs(state[1], 0), 0, column)
        return even, path.draw(k1, m.inputs(even, 1), 1, column)

    start = tuple(jnp.zeros((len(odd[0]), m.units[i].size), odd[0].dtype) for i in m.half(0))
    even, odd = jax.lax.fori_loop(0, k, sweep, (start, odd))
    rung = jnp.arange(n)
    for parity in (0, 1):
        partner = jnp.where(rung % 2 == parity, rung + 1, rung - 1)
        partner = jnp.where((partner < 0) | (partner >= n), rung, partner)
        slope = path.slope(even, odd).reshape(n, n_chains)
        # one uniform a pair: both of its members must decide alike
        u = jr.uniform(jr.fold_in(key, k + parity), (n, n_chains))[jnp.minimum(rung, partner)]
        gain = (beta - beta[partner])[:, None] * (slope[partner] - slope)
        take = jnp.where(jnp.log(u) < gain, partner[:, None], rung[:, None])
        index = (take * n_chains + jnp.arange(n_chains)).reshape(-1)
        even, odd = jax.tree.map(lambda a: a[index], (even, odd))
    return even, odd


def centred(grads: Any, offsets: Half) -> Any:
    """The gradient in the centred parametrisation (x - mu) W (y - nu), in terms of the plain parameters.

    Definition: G_l = dW_l - d_l nu^T - mu d_{l+1}^T;  d_l less G_l nu and G_{l-1}^T mu, with d the biases' gradients.
    """
    d, weights = grads.biases, list(grads.weights)
    for i, g in enumerate(weights):
        weights[i] = g - jnp.outer(d[i], offsets[i + 1]) - jnp.outer(offsets[i], d[i + 1])
    biases = list(d)
    for i, g in enumerate(weights):
        biases[i] = biases[i] - g @ offsets[i + 1]
        biases[i + 1] = biases[i + 1] - g.T @ offsets[i]
    return eqx.tree_at(lambda g: (g.weights, g.biases), grads, (tuple(weights), tuple(biases)))


def _gradient(machine: Any, even: Half, odd: Half, weight: Array, share: Array, x: Array, guess: Half | None) -> Any:
    """Of sum weight (-E) at fixed states, and of the recognition network's fit, in all that is trained."""
    diff, rest = split_trainable(machine)
    even, odd = stop_gradient((even, odd))

    def ascended(diff: PyTree) -> Array:
        m = eqx.combine(diff, rest)
        value = (weight * m.log_weight(even, odd)).sum()
        if guess is not None:
            value = value - (share * m.recognition.mismatch(stop_gradient(m.units[0].statistic(x)), guess)).sum()
        return value

    return jax.grad(ascended)(diff)


def _means_of(machine: Any, even: Half, odd: Half, share: Array) -> tuple[Array, ...]:
    """Mean statistic of each layer over the rows of the data."""
    layers = [(even, odd)[i % 2][i // 2] for i in range(len(machine.units))]
    return tuple(share @ u.statistic(a) for u, a in zip(machine.units, layers, strict=True))


def _stacked(a: Half, b: Half) -> Half:
    return tuple(jnp.concatenate(pair) for pair in zip(a, b, strict=True))


def _refused(name: str, value: Any, wrong: str, because: str, instead: str) -> OptionError:
    return OptionError(explain(f"`ContrastiveDivergence({name}={value!r})`", wrong, because, instead))
