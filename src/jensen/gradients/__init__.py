"""Gradient estimators and sampling plans."""

from . import plans as plans
from .doubly_reparameterised import DoublyReparameterised as DoublyReparameterised
from .enumerate import Enumerate as Enumerate
from .leave_one_out import LeaveOneOut as LeaveOneOut
from .pathwise import Pathwise as Pathwise
from .score_function import ScoreFunction as ScoreFunction
from .sitewise import Sitewise as Sitewise
