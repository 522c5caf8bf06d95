"""What the checks share."""

from typing import Any

from ..errors import explain

Z = 5.5  # standard errors
N = 20_000  # draws
MEAN, SD = 0.1, 0.1  # of the posterior sd: what a RELIABLE fit may be off by
KERNELS, WIDTH = 400, 0.6  # of a density of draws; in their sd
CLOSE = 1e-6  # of exact identities in double precision, relative to their size


class Wrong(AssertionError):
    """A part does not do what it promises."""


def hold(holds: Any, asked: str, wrong: str, because: str, instead: str) -> None:
    if not bool(holds):
        raise Wrong(explain(asked, wrong, because, instead))
