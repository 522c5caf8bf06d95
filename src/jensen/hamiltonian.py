"""Short Hamiltonian Monte Carlo from given noise: what improves the draws of a q, and what annealed sampling moves by.

Unbatched, like a model; many chains are one `vmap` of it. Step sizes and noise come from outside, so a chain is a
deterministic function, and a step that is not finite is a rejected one.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .errors import OptionError, explain
from .families.noise import StandardNormal, Uniform

GAIN = 0.05  # of the logarithm of a step size, for each unit that the acceptance is off its target

LogDensity = Callable[[Float[Array, " D"]], Float[Array, ""]]


class Point(NamedTuple):
    """A position, with the log density and its gradient there."""

    u: Float[Array, " D"]
    log_p: Float[Array, ""]
    grad: Float[Array, " D"]


def at(log_density: LogDensity, u: Float[Array, " D"]) -> Point:
    """The point at u."""
    return Point(u, *jax.value_and_grad(log_density)(u))


def leap(
    log_density: LogDensity, here: Point, momentum: Float[Array, " D"], uniform: Float[Array, ""], step_size, n: int
) -> tuple[Point, Float[Array, ""]]:
    """One Metropolis step of `n` leapfrog steps: (where the chain is next, probability of acceptance)."""
    there, end = _leapfrogs(log_density, here, momentum, step_size, n)
    energy = lambda point, p: 0.5 * (p**2).sum() - point.log_p
    log_ratio = energy(here, momentum) - energy(there, end)
    fine = jnp.isfinite(log_ratio) & jnp.isfinite(there.grad).all()
    probability = jnp.where(fine, jnp.exp(jnp.minimum(log_ratio, 0)), 0)
    moves = uniform < probability
    return jax.tree.map(lambda a, b: jnp.where(moves, a, b), there, here), probability


def _leapfrogs(log_density: LogDensity, here: Point, p: Array, step_size, n: int) -> tuple[Point, Array]:
    """The value is asked for at the end only: on the way the gradient suffices."""
    p, u = p + 0.5 * step_size * here.grad, here.u
    if n > 1:
        gradient = jax.grad(log_density)

        def one(carry, _):
            u, p = carry
            u = u + step_size * p
            return (u, p + step_size * gradient(u)), None

        (u, p), _ = jax.lax.scan(one, (u, p), length=n - 1)
    there = at(log_density, u + step_size * p)
    return there, p + 0.5 * step_size * there.grad


class Moved(NamedTuple):
    """Where a chain began and ended, and its mean probability of acceptance."""

    start: Point
    end: Point
    acceptance: Float[Array, ""]


class Chain(eqx.Module):
    """n_steps steps of Hamiltonian Monte Carlo (HMC), each of n_leapfrog leapfrog steps; one leapfrog step is the
    Metropolis-adjusted Langevin algorithm (MALA).

    Definition: momentum p ~ N(0, I); leapfrog steps of H(u, p) = |p|^2 / 2 - log p(u); accepted if uniform < exp(H - H').
    Cost:       n_steps * n_leapfrog + 1 gradients.
    Reference:  Neal (2011), section 5.2.  [neal2011hmc]
    """

    n_steps: int = eqx.field(static=True)
    n_leapfrog: int = eqx.field(static=True)

    def noise_law(self, dim: int) -> dict[str, StandardNormal | Uniform]:
        """Of a chain in `dim` dimensions."""
        return {"momenta": StandardNormal((self.n_steps, dim)), "uniforms": Uniform((self.n_steps,))}

    def __call__(self, log_density: LogDensity, u: Float[Array, " D"], noise: dict, step_size) -> Moved:
        start = at(log_density, u)

        def one(here, noise):
            return leap(log_density, here, noise["momenta"], noise["uniforms"], step_size, self.n_leapfrog)

        end, acceptance = jax.lax.scan(one, start, {k: noise[k] for k in ("momenta", "uniforms")})
        return Moved(start, end, acceptance.mean())


def adapted(log_step: Array, acceptance: Array, target: float, gain: float = GAIN) -> Array:
    """The logarithm of the step size after one look at the acceptance."""
    return log_step + gain * (acceptance - target)


def check_chain(asked: str, n_steps: int, n_leapfrog: int, step_size: float, target: float, alpha: float = 1.0) -> None:
    """Raises: OptionError where the options of a chain are out of range."""
    counts = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in (n_steps, n_leapfrog))
    if not (counts and step_size > 0 and 0 < target < 1 and 0 < alpha <= 1):
        because = "a chain makes whole steps of a positive size, and its acceptance is a probability"
        instead = "n_steps=8, n_leapfrog=5, step_size=0.05, target=0.9, and of VCD 0 < alpha <= 1"
        raise OptionError(explain(asked, "an option is out of range", because, instead))
