"""A search for modes that q does not know: many starts with one gradient each, ascents from what no mode explains."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .budget import OutOfBudget
from .climbs import ENDED, LATE, MOST_STEPS, WAITING, Climbs
from .importance import Weighted, proposal_of
from .mode_starts import KINDS, starting_points
from .modes import Mode, Residual, explained, forecast, held, measure_misfit, near, nearest, part_of, polished
from .searched import Searched
from .target import Target

STARTS, STARTS_OF_SEVERAL = 512, 2048  # a round
ASCENTS = 64  # a round, of those that nothing explains
ROUNDS, ROUNDS_OF_SEVERAL, MOST_ROUNDS = 2, 4, 12
A_ROUND, MOST = 2500, 60_000  # evaluations of ascents, and of the search
LINES = 600  # points on lines through new modes, a round
ALONG = np.geomspace(2, 100, 14)  # sd, to either side
POLISHED = 10  # ends of ascents, a round
SINGLE = 0.01  # share of the ends in modes that were met once, from which to look on
NEGLIGIBLE = 9.0  # nats below the whole: a mode that holds less than 1e-4
USUAL, LOW = 0.99, 0.01  # quantiles of q's draws: of log p - log q, and of log q
ROOM = 1.0  # nats above what was usual that still is
SHARE = 0.25  # of what is left of a budget
SEEN, HOPE = 0.5, 0.05  # chance of having seen a further mode: enough; from which more rounds may bring enough
WIDTHS = 1.0, 0.7, 0.5, 0.35  # of imagined modes, relative to those found
FEWEST, FEWEST_ASCENTS = 48, 8  # of a density that is dear
KEPT = 4000  # starts that are remembered, for pictures
BY_Q = 10**6  # an ascent that came to where q has mass enough
HEAVY = len(KINDS)  # a draw of q with a large weight


def search_modes(target: Target, q: Any, weighed: Weighted, seed: int, maxima: Sequence[Mode] = ()) -> Searched | None:
    """Looks for modes beside those of q.

    Definition: rounds of 512 starts: about 0 at all distances, about the modes at 1 to 128 sd, in their box and thrice it,
                with few coordinates moved, mirrored, shifted, permuted; for new modes lines along the axes. One gradient
                each; where no known mode's quadratic predicts value and gradient, 64 ascents, given up as soon as they
                come to a known mode or to where q has mass enough. Beside them, ascents of log (p - sum_k exp quadratic_k)
                from explained points where the density lies above: modes in the shade of others. Ends are polished by
                Newton, merged where the line between two does not dip, and kept within 9 nats. At least two rounds (four
                where there are several modes), and on until nothing new comes. Of a density that is dear fewer of all: the
                forecast says what that costs.
    Arguments:  q: Gaussian or mixture of Gaussians, weighed.   maxima: of log p, where they are known.
    Cost:       about 4,000 gradients where there is one mode; at most 60,000, or a quarter of the budget.
    Returns:    None where there is no gradient, q has no density anywhere, or the budget leaves no room.
    Cannot:     find a mode narrower than those known in many dimensions; `forecast` says so.
    """
    finite = np.isfinite(weighed.log_p)
    if not target.smooth or not finite.any() or target.affordable(MOST, SHARE, least=0) < target.fewer(STARTS, FEWEST):
        return None
    try:
        return _Search(target, q, weighed, seed, maxima).run()
    except OutOfBudget:  # before the first round
        return None


def follow(target: Target, found: Searched, u: Float[np.ndarray, "n D"], seed: int) -> list[Mode]:
    """The further modes that these points lead to, uphill; they are added to what was found.

    Cost:   at most 60 gradients a point, and a polish for the ten highest that end where no mode is known.
    """
    rng, known = np.random.default_rng([seed, 78]), [m.gaussian for m in found.modes]
    value, g = target(u)
    frame = nearest(found.modes, u)
    said = lambda u, value, g: explained(found.modes, u, value, g, roughly=True)
    climbs = Climbs(target, u, value, g, known, frame, said, MOST_STEPS * len(u))
    new: list[Mode] = []
    ends = np.flatnonzero(climbs.state < 0)
    for i in ends[np.argsort(-climbs.value[ends])][:POLISHED]:
        mode = polished(target, climbs.u[i], known[frame[i]])
        every = [*found.modes, *new]
        if not mode.maximum or part_of(target, every, mode) is not None:
            continue
        mode.log_z, mode.origin = held(target, mode, rng), "an annealed particle"
        if mode.log_z > max(found.log_z, *(m.log_z for m in every)) - NEGLIGIBLE:
            new.append(mode)
    found.modes += new
    return new


class _Search:
    def __init__(self, target: Target, q: Any, weighed: Weighted, seed: int, maxima: Sequence[Mode]):
        self.target, self.rng, self.maxima = target, np.random.default_rng([seed, 77]), maxima
        self.most = target.affordable(target.fewer(MOST), SHARE)
        self.ascents = target.fewer(ASCENTS, FEWEST_ASCENTS)
        self.quarter, self.a_round = max(self.ascents // 4, 2), target.fewer(A_ROUND)
        self.began = target.evaluations
        self.proposal = proposal_of(q)
        log_w, finite = weighed.log_p - weighed.log_q, np.isfinite(weighed.log_p)
        self.usual = float(np.quantile(log_w[finite], USUAL)) + ROOM
        self.low = float(np.quantile(weighed.log_q, LOW))
        self.log_z = float(weighed.evidence[0])
        self.draws, self.draws_log_p = weighed.u[finite], weighed.log_p[finite]
        self.excess = log_w[finite]
        self.modes = self._of(q)
        self.lined: set[int] = set()
        self.followed = self.unexplained = self.by_q = 0
        self.looked: list[np.ndarray] = []
        self.led: list[np.ndarray] = []
        self.found = Searched(self.modes, self.log_z)

    def run(self) -> Searched:
        """Rounds until it is quiet; what was found so far where the budget ends."""
        found = self.found
        try:
            for mode in self.modes:
                mode.log_z = held(self.target, mode, self.rng)
            for found.rounds in range(1, MOST_ROUNDS + 1):
                born = self._round()
                alive = self._alive()
                ends = sum(m.hits for m in self.modes) + self.by_q
                single = sum(m.hits == 1 and m.origin != "" for m in alive) / max(ends, 1)
                least = ROUNDS if len(alive) < 2 else ROUNDS_OF_SEVERAL
                found.quiet = found.rounds >= least and born == 0 and single < SINGLE
                if found.quiet:
                    self._foresee(alive)
                if self.target.evaluations - self.began > self.most or self.target.budget.spent:
                    break
                if found.quiet and not (found.rounds % ROUNDS_OF_SEVERAL == 0 and self._worth_more(alive)):
                    break
        except OutOfBudget:
            pass
        alive = self._alive()
        if self.looked and not found.quiet:
            self._foresee(alive)
        looked = np.concatenate([np.zeros((0, self.target.dim)), *self.looked])
        led = np.concatenate([np.zeros(0, int), *self.led])
        some = slice(None, None, max(1, -(-len(looked) // KEPT)))
        number = {id(m): i for i, m in enumerate(alive)}
        found.led = np.array([number.get(id(self.modes[k]), -1) if 0 <= k < BY_Q else -1 for k in led[some]], int)
        found.looked, found.starts = looked[some], len(looked)
        found.modes, found.log_z = alive, max(self.log_z, self._top())
        found.evaluations = self.target.evaluations - self.began
        return found

    def _worth_more(self, alive: list[Mode]) -> bool:
        """Would a further mode, narrower by as much as those found differ, be seen in some more rounds but not yet?"""
        return len(alive) > 1 and self.found.next < 1 and HOPE < self.found.forecast[self.found.next] < SEEN

    def _foresee(self, alive: list[Mode]) -> None:
        known = [m for m in alive if m.isolated] or self.modes[:1]
        share = min(self.followed / self.unexplained, 1.0) if self.unexplained else 1.0
        size = np.array([m.gaussian.log_det for m in known])
        spread = float(np.exp(np.ptp(size) / self.target.dim))
        self.found.spread, self.found.next = spread, spread ** (-1 / max(len(size) - 1, 1))
        widths, log_z = (*WIDTHS, self.found.next), max(self.log_z, self._top())
        self.found.forecast = forecast(known, np.concatenate(self.looked), log_z, share, self.rng, widths)

    # ---- what is known -------------------------------------------------------------------------------------------
    def _of(self, q: Any) -> list[Mode]:
        """The modes of q's components; where Newton leads away or to no maximum, the component as it is. Where maxima are
        known there is no Newton, and those that are no component's come last."""
        modes: list[Mode] = []
        for gaussian in getattr(q, "components", None) or [q]:
            mode = self._mode_of(gaussian)
            away = math.inf if mode is None else np.linalg.norm(gaussian.whiten(mode.at[None]))
            if mode is None or not mode.maximum or not away < 2 * math.sqrt(gaussian.dim):
                mode = Mode(gaussian, float(self.target.value(gaussian.mean[None])[0]), maximum=False, isolated=False)
            if not any(near(mode, m, 0.3) for m in modes):
                modes.append(mode)
        others = [m for m in self.maxima if not any(m is k for k in modes)]
        return modes + [dataclasses.replace(m, origin="a climb from q's starts") for m in others]

    def _mode_of(self, gaussian: Any) -> Mode | None:
        if not self.maxima:
            return polished(self.target, gaussian.mean, gaussian)
        return next((m for m in self.maxima if m.radius(gaussian.mean[None])[0] < math.sqrt(gaussian.dim)), None)

    def _alive(self) -> list[Mode]:
        top = self._top()
        for m in self.modes:
            m.alive = m.alive and (m.origin == "" or m.log_z > top - NEGLIGIBLE)
        return [m for m in self.modes if m.alive]

    def _top(self) -> float:
        return max(m.log_z for m in self.modes) if self.modes else -math.inf

    def _by_q(self, u: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Has q about as much density here as p, as its draws saw?"""
        log_q = self.proposal.log_prob(u)
        return (value - log_q <= self.usual) & (log_q > self.low)

    def _known(self, u: np.ndarray, value: np.ndarray, g: np.ndarray) -> np.ndarray:
        mode = explained(self.modes, u, value, g, roughly=True)
        return np.where(mode >= 0, mode, np.where(self._by_q(u, value), BY_Q, -1))

    # ---- one round -----------------------------------------------------------------------------------------------
    def _round(self) -> int:
        """Starts, ascents, and what they ended in: the number of new modes."""
        u, frame, kind = self._starts()
        value, g = self.target(u)
        ok = np.isfinite(value)
        u, frame, kind, value, g = u[ok], frame[ok], kind[ok], value[ok], g[ok]
        led = explained(self.modes, u, value, g, roughly=False)
        for k, n in zip(*np.unique(led[led >= 0], return_counts=True), strict=True):
            self.modes[k].hits += int(n)
        self.looked.append(u)
        self.led.append(led)
        born, plain = 0, np.flatnonzero(led >= 0)
        left = self._worth(u, value, np.flatnonzero(led < 0))
        if len(left):
            born += self._ascend(u, value, g, frame, kind, left, led)
        if len(plain):
            born += self._residual(u[plain], value[plain], frame[plain], led[plain])
        if self.found.rounds == 1:
            maxima = [k for k, m in enumerate(self.modes) if m.maximum]
            if maxima:
                owner = np.array(maxima)[nearest([self.modes[k] for k in maxima], self.draws)]
                born += self._residual(self.draws, self.draws_log_p, owner, owner)
        return born

    def _worth(self, u: np.ndarray, value: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Which unexplained starts to ascend from: a quarter of them those most above the quadratics, the rest any."""
        self.unexplained += len(left)
        if len(left) <= self.ascents:
            return left
        above = value[left] - np.max([m.quadratic(u[left]) for m in self.modes], 0)
        first = left[np.argsort(-above)][: self.quarter]
        rest = self.rng.permutation(np.setdiff1d(left, first))
        return np.concatenate([first, rest[: self.ascents - len(first)]])

    def _ascend(self, u, value, g, frame, kind, left, led) -> int:
        room = min(self.a_round, self.most - (self.target.evaluations - self.began))
        frames = [m.gaussian for m in self.modes]
        c = Climbs(self.target, u[left], value[left], g[left], frames, frame[left], self._known, room)
        begun = c.state != WAITING
        self.followed += int(begun.sum())
        self.found.ascents += int(begun.sum())
        self.by_q += int((c.state == BY_Q).sum())
        for i in np.flatnonzero((c.state >= 0) & (c.state < BY_Q)):
            self.modes[c.state[i]].hits += 1
            led[left[i]] = c.state[i]
        late, born = int((c.state == LATE).sum()), 0
        ends = np.flatnonzero(c.state == ENDED)
        tried = 0
        for i in ends[np.argsort(-c.value[ends])]:
            at, v, slope = c.u[i : i + 1], c.value[i : i + 1], c.g[i : i + 1]
            said = int(self._known(at, v, slope)[0])
            if said == BY_Q:
                self.by_q += 1
                continue
            if said < 0:
                beside = [k for k, m in enumerate(self.modes) if m.radius(at)[0] < 0.3 * math.sqrt(at.size)]
                said = next((k for k in beside if abs(self.modes[k].value - v[0]) < 1), -1)
            if said < 0 and tried < self._polishes:
                tried += 1
                said = self._add(
                    polished(self.target, at[0], frames[frame[left[i]]]), [*KINDS, "a heavy draw"][kind[left[i]]]
                )
                born += said >= 0 and self.modes[said].alive and self.modes[said].hits == 1
            elif said < 0:
                late += 1
            else:
                self.modes[said].hits += 1
            led[left[i]] = said
        if late > begun.sum() / 2 and begun.sum() > 40 and not born:
            self.ascents = self.quarter  # a slope without end: few are enough to see that it is one
        return born

    @property
    def _polishes(self) -> int:
        """How many ends a round may polish: for what its ascents may cost, and at least two."""
        return int(np.clip(self.a_round // (4 * (2 * self.target.dim + 4)), 2, POLISHED))

    def _add(self, mode: Mode, origin: str) -> int:
        """Its number; that of the mode that it is part of; -1 for what q accounts for."""
        same = part_of(self.target, self.modes, mode)
        if same is not None:
            self.modes[same].hits += 1
            return same
        mode.log_z, mode.origin = held(self.target, mode, self.rng), origin
        top = max(self._top(), self.log_z)
        mode.alive = mode.maximum and mode.log_z > top - NEGLIGIBLE
        if mode.alive and self._by_q(mode.at[None], np.array([mode.value]))[0]:
            mode.alive = False
            self.by_q += 1
        self.modes.append(mode)
        return len(self.modes) - 1

    def _residual(self, u: np.ndarray, value: np.ndarray, frame: np.ndarray, owner: np.ndarray) -> int:
        """Ascents of log (p - sum_k exp quadratic_k) from points where the density lies above the quadratics by more than
        the misfit of the mode `owner` explains."""
        for k in np.unique(owner):
            if self.modes[k].misfit is None:
                self.modes[k].misfit = measure_misfit(self.target, self.modes[k], self.rng)
        residual = Residual(self.target, [m for m in self.modes if m.maximum])
        limit = np.empty(len(u))
        for k in np.unique(owner):
            limit[owner == k] = self.modes[k].misfit * self.modes[k].radius(u[owner == k]) ** 2
        above = value - residual.log_sum(u) - limit - 1e-10 * (1 + np.abs(value))
        at = np.flatnonzero(above > 0)
        at = np.concatenate([at[np.argsort(-above[at])][: self.quarter], self.rng.permutation(at)[: self.quarter]])
        at = np.unique(at)
        if not len(at):
            return 0
        u, frame = u[at], frame[at]
        rest, slope = residual(u)
        ok = np.isfinite(rest)
        u, frame, rest, slope = u[ok], frame[ok], rest[ok], slope[ok]
        room = min(self.a_round, self.most - (self.target.evaluations - self.began))
        frames = [m.gaussian for m in self.modes]
        c = Climbs(residual, u, rest, slope, frames, frame, None, room)
        born = tried = 0
        for i in np.argsort(-c.value):
            far = all(m.radius(c.u[i : i + 1])[0] > 1.5 * math.sqrt(self.target.dim) for m in self.modes)
            if c.state[i] == WAITING or not far or tried >= self._polishes:
                continue
            tried += 1
            said = self._add(polished(self.target, c.u[i], frames[frame[i]]), "in the shade of a mode")
            born += said >= 0 and self.modes[said].alive and self.modes[said].hits == 1
        return born

    # ---- where to start ------------------------------------------------------------------------------------------
    def _starts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points, the mode in whose coordinates each ascends, and the kind of each."""
        known = [k for k, m in enumerate(self.modes) if m.alive] or [0]
        n = self.target.fewer(STARTS if len(known) == 1 else STARTS_OF_SEVERAL, FEWEST)
        frame = self.rng.choice(known, n)
        kind = np.arange(n) % len(KINDS)
        u = starting_points(self.modes, np.array(known), frame, kind, self.target.layout, self.rng)
        new = [k for k in known if k not in self.lined][:2]
        self.lined.update(new)
        lines = [self._lines(self.modes[k]) for k in new]
        heavy = self.draws[np.argsort(-self.excess)[: self.quarter]] if self.found.rounds == 1 else self.draws[:0]
        frame = np.concatenate([frame, *(np.full(len(p), k) for k, p in zip(new, lines, strict=True))])
        frame = np.concatenate([frame, self.rng.choice(known, len(heavy))])
        kind = np.concatenate([kind, np.full(sum(map(len, lines)), KINDS.index("along coordinates"))])
        return np.concatenate([u, *lines, heavy]), frame, np.concatenate([kind, np.full(len(heavy), HEAVY)])

    def _lines(self, mode: Mode) -> np.ndarray:
        """Through a mode, along all coordinates at once and along each (as many as there is room for)."""
        sd, d = mode.gaussian.sd, self.target.dim
        ways = np.concatenate([sd[None], np.diag(sd)])
        along = ALONG[:: round(1 / self.target.pace.effort**0.5)]
        lines = self.target.fewer(LINES) // (2 * len(along))
        order = np.concatenate([[0], 1 + self.rng.permutation(d)])[: max(lines, 1)]
        x = np.concatenate([-along, along])
        return (mode.at + x[None, :, None] * ways[order][:, None]).reshape(-1, d)
