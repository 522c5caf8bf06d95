"""jensen: variational inference and latent-variable models on JAX. log E[w] >= E[log w].

`import jensen as jn`; `jn.fit(model, data)` gives a `Fit` with a posterior and a verdict on it.
"""

from typing import TYPE_CHECKING

from .fit.fit import fit as fit  # now: later, importing the package of that name would take its place
from .lapack import guard as _guard
from .lazy import lazily

if TYPE_CHECKING:
    from . import data as data
    from . import families as families
    from . import gradients as gradients
    from . import methods as methods
    from . import models as models
    from . import nets as nets
    from . import objectives as objectives
    from . import testing as testing
    from . import zoo as zoo
    from .compiled import clear_caches as clear_caches
    from .diagnostics.compare import compare as compare
    from .diagnostics.linear_response import linear_response as linear_response
    from .diagnostics.verdict import Verdict as Verdict
    from .errors import CheckpointError as CheckpointError
    from .errors import DataError as DataError
    from .errors import IncompatibleComposition as IncompatibleComposition
    from .errors import JensenError as JensenError
    from .errors import ModelError as ModelError
    from .errors import OptionError as OptionError
    from .fit.em import em as em
    from .fit.persist import load as load
    from .fit.result import Fit as Fit
    from .gradients import plans as plans
    from .lab import gradient_lab as gradient_lab
    from .models.adapters.numpyro import from_numpyro as from_numpyro
    from .models.adapters.pymc import from_pymc as from_pymc
    from .models.adapters.stan import from_stan as from_stan

__version__ = "0.1.0"

_guard()

__getattr__, _loaded_or_not, _lazy = lazily(__name__)
__all__ = sorted([*_lazy, "fit"])


def __dir__() -> list[str]:
    """What is public; the rest of the package is its inside."""
    return [*__all__, "__version__"]
