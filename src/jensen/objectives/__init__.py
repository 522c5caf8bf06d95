"""Objectives: which bound."""

from .cubo import CUBO as CUBO
from .elbo import ELBO as ELBO
from .iwae import IWAE as IWAE
from .renyi import Renyi as Renyi
