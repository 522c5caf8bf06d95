"""What a search for modes did and found, as it is told and drawn."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from .modes import Mode, shares


@dataclasses.dataclass
class Searched:
    """What a search for modes did, and what it found.

    modes:    those that hold more than 1e-4 of the mass, known ones first.
    spread:   how many times as wide as the narrowest the widest of them is, by volume to the power 1 / D.
    next:     the width, relative to one found, of a mode that is narrower by as much as those found differ on average.
    log_z:    of all.   starts, ascents, rounds, evaluations: how many.
    forecast: for each width, relative to those found (and for `next`), the chance that a mode with 10 % of the mass
              would have been seen.
    quiet:    did it end because nothing new came?
    looked, led: (n, D) some starts, and the number of the mode each led to (-1: none).
    """

    modes: list[Mode]
    log_z: float
    spread: float = 1.0
    next: float = 1.0
    starts: int = 0
    ascents: int = 0
    rounds: int = 0
    evaluations: int = 0
    forecast: dict[float, float] = dataclasses.field(default_factory=dict)
    quiet: bool = False
    looked: Any = None
    led: Any = None

    def picture(self, n: int = 600) -> dict[str, Any]:
        """What a reader may see of it: some starts and all modes in two coordinates, as plain numbers.

        Definition: distances in sd of the heaviest mode; the plane of the largest spread of the modes (of the starts'
                    directions, where there are fewer than three modes).
        """
        weight = shares(self.modes)
        first = self.modes[int(np.argmax(weight))].gaussian
        u = self.looked[:: max(1, len(self.looked) // n)]
        scaled = lambda x: (x - first.mean) / first.sd
        z, at = scaled(u), scaled(np.stack([m.at for m in self.modes]))
        length = np.linalg.norm(z, axis=1, keepdims=True)
        away = at / max(np.abs(at).max(), 1e-300)
        rows = np.concatenate([1e3 * away, z / np.maximum(length, 1e-300)])
        plane: Any = np.linalg.svd(rows, full_matrices=False)[2][:2].T
        flat = lambda x: np.round(x @ plane, 4).tolist()
        return {
            "starts": flat(z), "led": self.led[:: max(1, len(self.looked) // n)].tolist(), "modes": flat(at),
            "shares": np.round(weight, 6).tolist(), "new": [bool(m.origin) for m in self.modes],
        }  # fmt: skip

    @property
    def new(self) -> list[Mode]:
        """Heaviest first."""
        return sorted((m for m in self.modes if m.origin), key=lambda m: -m.log_z)

    def missed(self, u: Float[np.ndarray, "n D"]) -> float:
        """The share of the mass in those of the new modes that have hardly any of these draws about them."""
        weight, out = shares(self.modes), 0.0
        for mode, share in zip(self.modes, weight, strict=True):
            if mode.origin and mode.isolated and len(u):
                about = float((mode.radius(u) < 2 * math.sqrt(u.shape[1])).mean())
                out += float(share) if about < share / 20 else 0.0
        return out
