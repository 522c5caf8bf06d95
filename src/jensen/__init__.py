"""jensen: variational inference and latent-variable models on JAX. log E[w] >= E[log w].

`import jensen as jn`; `jn.fit(model, data)` gives a `Fit` with a posterior and a verdict on it.
"""

from typing import TYPE_CHECKING

from . import families as families
from . import gradients as gradients
from . import methods as methods
from . import models as models
from . import objectives as objectives
from .compiled import clear_caches as clear_caches
from .diagnostics.verdict import Verdict as Verdict
from .errors import (
    CheckpointError as CheckpointError,
)
from .errors import (
    DataError as DataError,
)
from .errors import (
    IncompatibleComposition as IncompatibleComposition,
)
from .errors import (
    JensenError as JensenError,
)
from .errors import (
    ModelError as ModelError,
)
from .errors import (
    OptionError as OptionError,
)
from .fit.fit import fit as fit
from .fit.result import Fit as Fit
from .gradients import plans as plans
from .lapack import guard as _guard

if TYPE_CHECKING:
    from . import zoo as zoo
    from .diagnostics.compare import compare as compare
    from .diagnostics.linear_response import linear_response as linear_response
    from .fit.em import em as em
    from .fit.persist import load as load
    from .lab import gradient_lab as gradient_lab
    from .models.adapters.numpyro import from_numpyro as from_numpyro
    from .models.adapters.pymc import from_pymc as from_pymc
    from .models.adapters.stan import from_stan as from_stan

__version__ = "0.1.0"

_guard()

_LAZY = {
    "compare": ("diagnostics.compare", "compare"),
    "em": ("fit.em", "em"),
    "gradient_lab": ("lab.lab", "gradient_lab"),
    "linear_response": ("diagnostics.linear_response", "linear_response"),
    "load": ("fit.persist", "load"),
    "from_numpyro": ("models.adapters.numpyro", "from_numpyro"),
    "from_pymc": ("models.adapters.pymc", "from_pymc"),
    "from_stan": ("models.adapters.stan", "from_stan"),
    "zoo": ("zoo", None),
}


def __getattr__(name: str):
    """Heavy parts (NumPyro, scikit-learn) are imported when first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'jensen' has no attribute {name!r}")
    import importlib

    module, attribute = _LAZY[name]
    found = importlib.import_module(f".{module}", __name__)
    value = found if attribute is None else getattr(found, attribute)
    globals()[name] = value
    return value
