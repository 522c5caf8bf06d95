"""Variational families: which q may be chosen."""

from .amortised import Amortised as Amortised
from .concrete import Concrete as Concrete
from .concrete import OnRelaxed as OnRelaxed
from .concrete import relaxed as relaxed
from .discrete import Bernoulli as Bernoulli
from .discrete import Categorical as Categorical
from .flow import InverseAutoregressive as InverseAutoregressive
from .flow import MaskedAutoregressive as MaskedAutoregressive
from .flow import RealNVP as RealNVP
from .flow import Spline as Spline
from .full_rank import FullRank as FullRank
from .global_local import GlobalLocal as GlobalLocal
from .global_local import Table as Table
from .layered import Layers as Layers
from .low_rank import LowRank as LowRank
from .mean_field import MeanField as MeanField
from .mixture import Mixture as Mixture
from .product import Product as Product
from .univariate import Univariate as Univariate
