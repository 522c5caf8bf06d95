"""The path from a machine without links to a Boltzmann machine, linear in all parameters."""

import equinox as eqx
from jaxtyping import Array, Float

from .boltzmann import AbstractBoltzmann, Half


class AnnealedPath(eqx.Module):
    """-E_beta = (1 - beta) (-E_0) + beta (-E): weights beta W, biases (1 - beta) b_0 + beta b.

    base:   b_0, the biases of the machine without links: base rates.
    beta:   a number, or a column (rows, 1), where rows are at different temperatures.
    Reference:  Salakhutdinov and Murray (2008), base-rate model.  [salakhutdinov2008quantitative]
    """

    machine: AbstractBoltzmann
    base: tuple[Float[Array, " a"], ...]

    def biases(self, beta: Array, half: int) -> Half:
        m = self.machine
        return tuple((1 - beta) * self.base[i] + beta * m.biases[i] for i in m.half(half))

    def fields(self, inputs: Half, half: int, beta: Array) -> Half:
        """Of a half, from what reaches it at beta = 1."""
        return tuple(b + beta * a for b, a in zip(self.biases(beta, half), inputs, strict=True))

    def draw(self, key: Array, inputs: Half, half: int, beta: Array) -> Half:
        return self.machine.draw(key, self.machine.means_at(self.fields(inputs, half, beta), half), half)

    def log_base_partition(self) -> Float[Array, ""]:
        """log Z at beta = 0: a product over units."""
        parts = [u.log_partition(b).sum() for u, b in zip(self.machine.units, self.base, strict=True)]
        return sum(parts[1:], parts[0])

    def slope(self, even: Half, odd: Half) -> Float[Array, " n"]:
        """d(-E_beta) / d beta of joint states: what a swap of temperatures is decided by."""
        m = self.machine
        inputs = m.inputs(even, 1)
        t = lambda i, a: m.units[i].statistic(a)
        parts = [(a * t(i, x)).sum(-1) for i, a, x in zip(m.half(1), inputs, odd, strict=True)]
        for half, layers in ((0, even), (1, odd)):
            parts += [t(i, x) @ (m.biases[i] - self.base[i]) for i, x in zip(m.half(half), layers, strict=True)]
        return sum(parts[1:], parts[0])
