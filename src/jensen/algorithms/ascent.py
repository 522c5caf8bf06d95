"""Limited-memory BFGS: uphill from several starts side by side, with all that was seen on the way."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .low_rank import LowRankGaussian, quasi_newton

ARMIJO, CURVATURE = 1e-4, 0.9  # Wolfe's conditions
SHORTER = np.array([0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-6])  # tried in one batch instead of backtracking
LONGER = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0])
RELATIVE = 1e-12  # change of the value below which there is only rounding
DISTINCT_PAIR = 1e-12  # s . z against |z|^2 from which a pair has curvature that can be trusted

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass
class Trajectory:
    """One ascent, in x = u / unit: positions, values, gradients, the diagonal inverse Hessian, the pairs that count.

    pairs: l for each accepted pair s = x[l + 1] - x[l], z = gradient[l] - gradient[l + 1].   why: "" while it runs.
    forgotten: how many positions have been dropped.
    """

    x: list[Float[np.ndarray, " D"]]
    value: list[float]
    gradient: list[Float[np.ndarray, " D"]]
    alpha: list[Float[np.ndarray, " D"]]
    unit: Float[np.ndarray, " D"]
    pairs: list[int] = dataclasses.field(default_factory=list)
    why: str = ""
    forgotten: int = 0

    def pair(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[at + 1] - self.x[at], self.gradient[at] - self.gradient[at + 1]

    @property
    def end(self) -> Float[np.ndarray, " D"]:
        """u where it is now."""
        return self.unit * self.x[-1]

    def local(self, at: int, memory: int, scale: float = 1.0) -> LowRankGaussian:
        """N(u + H g, H) at position `at`, H the inverse Hessian from the last `memory` pairs before it.

        scale: of the diagonal that H starts from.
        """
        found = [self.pair(i) for i in [i for i in self.pairs if i < at][-memory:]]
        s, z = (np.array(v).reshape(-1, self.unit.size) for v in (zip(*found, strict=True) if found else ((), ())))
        q = quasi_newton(self.x[at], scale * self.alpha[at], s, z)
        mean = q.apply(q.pull(self.gradient[at][None]))[0]
        return dataclasses.replace(q, mean=self.unit * mean, scale=self.unit * q.scale)

    def forget(self, memory: int) -> None:
        """Drops what neither the next steps nor the Gaussian at the end need."""
        first = min([*self.pairs[-memory:], len(self.x) - 1])
        for i in range(self.forgotten, first):
            self.x[i] = self.gradient[i] = self.alpha[i] = _NOTHING
        self.forgotten = max(self.forgotten, first)


_NOTHING = np.zeros(0)


def ascend(
    evaluate: Evaluate,
    u: Float[np.ndarray, "P D"],
    memory: int = 10,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
    stop: Callable[[], bool] = lambda: False,
    unit: Float[np.ndarray, " D"] | None = None,
    keep: bool = True,
) -> list[Trajectory]:
    """Maximises a function from P starts at once; the trajectories, without the starts where it is not finite.

    Arguments:  evaluate: (n, D) -> values (n,) and gradients (n, D); -inf where it is not defined.
                tolerance: of g^T H g, twice the gain that a quadratic would still give.   stop: is the budget spent?
                unit: of each coordinate, where known.   keep: the whole of each trajectory, not the last pairs only.
    Cost:       one evaluation an iteration and a path, and eight more where the unit step is refused.
    Promises:   values rise along each trajectory.
    """
    one = np.ones(u.shape[1]) if unit is None else unit
    scaled = _Scaled(evaluate, one)
    value, gradient = scaled(u / one) if len(u) else (np.zeros(0), u)
    first = lambda g: np.full(g.size, _length_one(g))
    paths = [
        Trajectory([p], [float(v)], [g], [first(g)], one)
        for p, v, g in zip(u / one, value, gradient, strict=True)
        if np.isfinite(v)
    ]
    for _ in range(max_iterations):
        live = [p for p in paths if not p.why]
        if not live or stop():
            break
        ways = [_direction(p, memory) for p in live]
        for path, way in zip(live, ways, strict=True):
            if not path.gradient[-1] @ way > tolerance and (path.pairs or not path.gradient[-1].any()):
                path.why = "converged"
        moving = [(p, w) for p, w in zip(live, ways, strict=True) if not p.why]
        if moving:
            _line_search(scaled, moving)
        for path in live if not keep else []:
            path.forget(memory)
    for path in paths:
        path.why = path.why or "budget"
    return paths


def _length_one(g: np.ndarray) -> float:
    """The diagonal for a first step of length 1; 1 where there is no slope to tell."""
    length = float(np.linalg.norm(g))
    return 1 / length if length > 1e-8 else 1.0


@dataclasses.dataclass
class _Scaled:
    """The function of x = u / unit."""

    evaluate: Evaluate
    unit: np.ndarray

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = self.evaluate(x * self.unit)
        return value, gradient * self.unit


def _direction(path: Trajectory, memory: int) -> np.ndarray:
    """H g by the two-loop recursion."""
    way, alpha = path.gradient[-1].copy(), path.alpha[-1]
    done = []
    for at in path.pairs[-memory:][::-1]:
        s, z = path.pair(at)
        rho = 1 / (s @ z)
        a = rho * (s @ way)
        way -= a * z
        done.append((s, z, rho, a))
    way *= alpha
    for s, z, rho, a in done[::-1]:
        way += s * (a - rho * (z @ way))
    return way if np.isfinite(way).all() else alpha * path.gradient[-1]


def _line_search(evaluate: Evaluate, moving: list[tuple[Trajectory, np.ndarray]]) -> None:
    """Unit steps of all paths in one batch; then, where Wolfe's conditions fail, shorter or longer ones, in another."""
    tried = _tried(evaluate, moving, [np.ones(1)] * len(moving))
    again, steps = [], []
    for i, ((path, way), (_, value, gradient)) in enumerate(zip(moving, tried, strict=True)):
        slope = path.gradient[-1] @ way
        if not value[0] >= path.value[-1] + ARMIJO * slope:
            again.append(i)
            steps.append(SHORTER)
        elif gradient[0] @ way > CURVATURE * slope:
            again.append(i)
            steps.append(LONGER)
    for i, more in zip(again, _tried(evaluate, [moving[i] for i in again], steps) if again else [], strict=True):
        first = tried[i]
        tried[i] = tuple(np.concatenate([a, b]) for a, b in zip(first, more, strict=True))  # pyright: ignore
    for (path, way), (x, value, gradient) in zip(moving, tried, strict=True):
        _accept(path, way, x, value, gradient)


def _tried(evaluate: Evaluate, moving, steps: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    points = [path.x[-1] + t[:, None] * way for (path, way), t in zip(moving, steps, strict=True)]
    value, gradient = evaluate(np.concatenate(points))
    cuts = np.cumsum([len(p) for p in points])[:-1]
    return list(zip(points, np.split(value, cuts), np.split(gradient, cuts), strict=True))


def _accept(path: Trajectory, way: np.ndarray, x: np.ndarray, value: np.ndarray, gradient: np.ndarray) -> None:
    """The best point tried, if it is higher; the pair if it has curvature."""
    i = int(np.argmax(value))
    gain = value[i] - path.value[-1]
    if not gain > 0:
        if not path.pairs or gain > -RELATIVE * (1 + abs(value[i])):  # as high as rounding can tell
            path.why = "converged" if path.pairs else "stalled"
        path.pairs.clear()  # once more, along the scaled gradient
        path.alpha[-1] = np.full(way.size, _length_one(path.gradient[-1]))
        return
    path.x.append(x[i].copy())  # not a view: it would hold the whole batch
    path.value.append(float(value[i]))
    path.gradient.append(gradient[i].copy())
    at = len(path.x) - 2
    s, z = path.pair(at)
    if s @ z > DISTINCT_PAIR * (z @ z) and np.isfinite(s @ z):
        path.alpha.append(_diagonal(path.alpha[-1], s, z, first=not path.pairs))
        path.pairs.append(at)
    else:
        path.alpha.append(path.alpha[-1])
        if s @ z <= 0 and not path.pairs:
            path.alpha[-1] = path.alpha[-1] * 4  # upwards curved: there is no scale yet
    if gain < RELATIVE * (1 + abs(value[i])) and path.pairs:
        path.why = "converged"


def _diagonal(alpha: np.ndarray, s: np.ndarray, z: np.ndarray, first: bool) -> np.ndarray:
    """The diagonal inverse Hessian after one more pair."""
    if first:
        alpha = np.full(s.size, (s @ z) / (z @ z))
    a, b, c = (z * alpha) @ z, z @ s, (s / alpha) @ s
    new = 1 / (a / (b * alpha) + z**2 / b - a * s**2 / (b * c * alpha**2))
    return new if np.isfinite(new).all() and (new > 0).all() else alpha
