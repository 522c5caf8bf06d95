"""The table of a fit: what it says of each coordinate, and what it leaves open."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..diagnostics.marginals import MEAN_AND_SD, SD, of_draws
from ..errors import ModelError, explain
from ..tree import Layout

if TYPE_CHECKING:
    import pandas as pd


def summary(fit: Any, prob: float = 0.9) -> "pd.DataFrame":
    """See `Fit.summary`."""
    import pandas as pd

    if not 0 < prob < 1:
        raise ModelError(
            explain(f"summary(prob={prob})", "it is not between 0 and 1", "it is the interval's mass", "prob=0.9")
        )
    draws = fit._posterior
    names, n = Layout(jax.tree.map(lambda a: a.shape[1:], draws)).names(), len(jax.tree.leaves(draws)[0])
    values = np.concatenate([np.asarray(a, np.float64).reshape(n, -1) for a in jax.tree.leaves(draws)], 1)
    low, high = (1 - prob) / 2, 1 - (1 - prob) / 2
    m = fit.marginals if fit.marginals is not None else of_draws(values, names)
    determined = lambda number, below: np.where(m.undetermined < below, number, np.nan)
    table = {"mean": determined(m.mean, MEAN_AND_SD), "sd": determined(m.sd, SD)}
    table |= dict(
        zip((f"{100 * low:g}%", "50%", f"{100 * high:g}%"), np.quantile(values, [low, 0.5, high], axis=0), strict=True)
    )
    table["mcse"] = table["mcse_mean"] = determined(m.mcse_mean, MEAN_AND_SD)
    table |= {"mcse_sd": determined(m.mcse_sd, SD), "ess": m.ess}
    if fit.corrected == "chains":
        table["r_hat"] = m.r_hat
    table["undetermined"] = m.marks
    return pd.DataFrame(table, index=pd.Index(names, name="parameter"))
