"""Some forty models as people write them in NumPyro whose densities are not cheap: every other one is held out.

A gradient takes from a tenth of a millisecond to a tenth of a second: a factorisation, a solver, a long loop, many rows or
many coordinates. Where it takes long, the reference is drawn in coordinates in which the posterior is about standard normal.
"""

from benchmarks.posteriors.priced import dynamics, groups, processes, regressions, series
from benchmarks.posteriors.priced.base import ENTRIES

DENSITIES = regressions.DENSITIES
__all__ = ["DENSITIES", "ENTRIES", "dynamics", "groups", "processes", "regressions", "series"]
