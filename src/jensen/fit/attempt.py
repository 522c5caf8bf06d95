"""What was tried on the way to a fit."""

import dataclasses


@dataclasses.dataclass
class Attempt:
    """One thing that was tried."""

    family: str  # or the rung
    verdict: str
    khat: float
    elbo: float
    seconds: float
    why: str
    log_evidence: float | None = None
    evaluations: int = 0
    climbed: str = ""  # why the ladder went on from here
