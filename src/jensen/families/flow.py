"""Normalizing flows of coupling and autoregressive layers."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Shared, default_float
from .bijections import Stack, check_stack
from .full_rank import FullRank
from .mean_field import MeanField
from .warped import FLOW, AbstractFlow, start_arrays, start_base

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class Conditioned(eqx.Module):
    """The arrays of a flow whose networks read a context: under `Amortised` a row has the context of its own only."""

    context: Float[Array, " C"]
    nets: Shared


class AbstractStacked(AbstractFlow):
    """T of coupling or autoregressive layers.   stack: all of T but its arrays."""

    stack: AbstractVar[Stack]

    @property
    def facts(self):
        return FLOW - {Fact.OWN_PARAMETERS} if self.stack.context else FLOW

    def begin(self, key, dim):
        nets = self.stack.start(key, dim)
        n = self.stack.context
        return Conditioned(jnp.zeros(n, default_float()), Shared(nets)) if n else nets

    def map(self):
        dim, arrays = self.base.loc.shape[0], self.arrays
        if isinstance(arrays, Conditioned):
            return self.stack(arrays.nets.value, dim, arrays.context)
        return self.stack(arrays, dim)


class RealNVP(AbstractStacked):
    """Affine coupling flow, RealNVP.

    Definition: z = mu + L T(eps); T of `n_layers` layers (a, b) -> (a, b e^{s(a)} + t(a)), the halves a, b chosen anew by
                permutations, s and t a network.
    Arguments:  shape: the latents' shape or tree of shapes (at least 2 coordinates); left out, it is the model's.
                n_layers; width, depth, activation: hidden layers of each network.
                loc: starting means, a tree like the latents (default 0).   scale: starting sd, > 0 (default 0.1), a number or
                a tree like the latents; or cholesky: `(D, D)` lower-triangular L, in the order of the tree's leaves.
                diagonal: L is diagonal (default: if there is a context).
                context: length of a vector that every network reads too. Then the networks are the same for all rows
                (`Shared`), and under `Amortised` an encoder computes the context, mu and L: q(. | x) of Kingma et al. (2016).
                Without it an encoder computes all weights of all networks.
    Cost:       O(D width) a layer for a draw, and as much for its density: the inverse is as cheap as the map.
    Reference:  Dinh, Sohl-Dickstein and Bengio (2017).  [dinh2017realnvp]
    """

    base: FullRank | MeanField
    arrays: Any
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 6, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool | None = None,
        context: int = 0,
    ):  # fmt: skip
        self.stack = Stack("coupling", n_layers, width, depth, activation, context=context)
        self.base = _base("RealNVP", self.stack, shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)


class NICE(AbstractStacked):
    """Additive coupling flow, NICE: `RealNVP` with s = 0.

    Definition: layers (a, b) -> (a, b + t(a)): T keeps volumes, and all scaling is that of L.
    Arguments:  as for `RealNVP`.
    Cost:       O(D width) a layer, either way.
    Reference:  Dinh, Krueger and Bengio (2015).  [dinh2015nice]
    """

    base: FullRank | MeanField
    arrays: Any
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 6, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool | None = None,
        context: int = 0,
    ):  # fmt: skip
        self.stack = Stack("additive", n_layers, width, depth, activation, context=context)
        self.base = _base("NICE", self.stack, shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)


class Spline(AbstractStacked):
    """Rational-quadratic neural spline flow, by coupling (NSF).

    Definition: as `RealNVP`, but a layer maps b first by a monotone rational-quadratic spline on [-interval, interval], the
                identity beyond, whose knots are computed from a; then by the affine map.
    Arguments:  as for `RealNVP`.   knots: inner knots of a spline, 2 or more.   interval: in standard deviations.
    Cost:       about five times that of `RealNVP`.
    Reference:  Durkan, Bekasov, Murray and Papamakarios (2019).  [durkan2019spline]
    """

    base: FullRank | MeanField
    arrays: Any
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, width: int = 64, depth: int = 1, activation: str = "silu",
        knots: int = 8, interval: float = 4.0, loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None,
        diagonal: bool | None = None, context: int = 0,
    ):  # fmt: skip
        if knots < 2 or not interval > 0:
            asked, because = f"`Spline(knots={knots}, interval={interval})`", "a spline has knots on an interval"
            raise OptionError(explain(asked, "out of range", because, "knots >= 2 and interval > 0"))
        self.stack = Stack("coupling", n_layers, width, depth, activation, knots, float(interval), context=context)
        self.base = _base("Spline", self.stack, shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)


class InverseAutoregressive(AbstractStacked):
    """Inverse autoregressive flow, IAF.

    Definition: as `RealNVP`, with layers x_d -> x_d e^{s_d(x_<d)} + t_d(x_<d), by one masked network; the order of the
                coordinates is reversed from layer to layer.
    Arguments:  as for `RealNVP`.
    Cost:       a draw with its log q: one network a layer. The density of a given draw: D networks a layer, one after the
                other; so prefer `Pathwise()` to `DoublyReparameterised()` where D is large.
    Reference:  Kingma et al. (2016); Germain et al. (2015) for the masks.  [kingma2016iaf]
    """

    base: FullRank | MeanField
    arrays: Any
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool | None = None,
        context: int = 0,
    ):  # fmt: skip
        self.stack = Stack("autoregressive", n_layers, width, depth, activation, context=context)
        self.base = _base("InverseAutoregressive", self.stack, shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)


class MaskedAutoregressive(AbstractStacked):
    """Masked autoregressive flow, MAF: the inverse of `InverseAutoregressive`'s map.

    Arguments:  as for `RealNVP`.
    Cost:       the density of a given draw: one network a layer. A draw: D networks a layer, one after the other.
    Reference:  Papamakarios, Pavlakou and Murray (2017).  [papamakarios2017maf]
    """

    base: FullRank | MeanField
    arrays: Any
    stack: Stack

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 4, width: int = 64, depth: int = 1, activation: str = "silu",
        loc: PyTree = None, scale: PyTree = 0.1, cholesky: Array | None = None, diagonal: bool | None = None,
        context: int = 0,
    ):  # fmt: skip
        self.stack = Stack("masked", n_layers, width, depth, activation, context=context)
        self.base = _base("MaskedAutoregressive", self.stack, shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)


def _base(name, stack, shape, loc, scale, cholesky, diagonal) -> FullRank | MeanField:
    check_stack(name, stack)
    if diagonal is None:
        diagonal = stack.context > 0 and cholesky is None
    return start_base(name, shape, loc, scale, cholesky, diagonal)
