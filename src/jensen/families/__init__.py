"""Variational families: which q may be chosen."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .amortised import Amortised as Amortised
    from .base import AbstractDistribution as AbstractDistribution
    from .base import AbstractFamily as AbstractFamily
    from .concrete import Concrete as Concrete
    from .concrete import OnRelaxed as OnRelaxed
    from .concrete import relaxed as relaxed
    from .continuous import ContinuousFlow as ContinuousFlow
    from .copula import GaussianCopula as GaussianCopula
    from .discrete import Bernoulli as Bernoulli
    from .discrete import Categorical as Categorical
    from .flow import NICE as NICE
    from .flow import InverseAutoregressive as InverseAutoregressive
    from .flow import MaskedAutoregressive as MaskedAutoregressive
    from .flow import RealNVP as RealNVP
    from .flow import Spline as Spline
    from .full_rank import FullRank as FullRank
    from .global_local import GlobalLocal as GlobalLocal
    from .hierarchical import Hierarchical as Hierarchical
    from .implicit import Implicit as Implicit
    from .layered import Layers as Layers
    from .low_rank import LowRank as LowRank
    from .mean_field import MeanField as MeanField
    from .mixture import Mixture as Mixture
    from .particles import Particles as Particles
    from .planar import Planar as Planar
    from .planar import Radial as Radial
    from .product import Product as Product
    from .semi_implicit import SemiImplicit as SemiImplicit
    from .skewed import SinhArcsinh as SinhArcsinh
    from .structured import Autoregressive as Autoregressive
    from .sylvester import Householder as Householder
    from .sylvester import Sylvester as Sylvester
    from .table import Table as Table
    from .univariate import Univariate as Univariate
    from .variational_gp import VariationalGP as VariationalGP

__getattr__, __dir__, __all__ = lazily(__name__)
