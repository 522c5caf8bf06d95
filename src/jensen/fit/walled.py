"""The rungs of a density that ends near its mass."""

from typing import Any

from ..algorithms.solver import Solution
from ..samplers.chains import gaussian_like, gaussian_of
from ..samplers.slices import Slices
from ..samplers.walls import Support, support_of
from .view import View, ended_view


def within_walls(ladder: Any, modes: Solution) -> Any:
    """The last step of the Gaussians in coordinates that end at the walls, or of draws that stay within; None: no walls."""
    mode = None if modes.q is None else gaussian_of(modes.q).mean
    ladder.support = ladder._unless_spent(support_of, ladder.target, mode, ladder.seed)
    if ladder.support is None:
        return None
    if ladder.support.ends is not None:
        step = ladder._unless_spent(ladder._gaussians, ended_view(ladder.target, ladder.support.ends))
    else:
        step = draws_within(ladder, ladder.support)
    if step is None and ladder.cut:  # the budget ended on the way: what the draws from within have come to
        view, began, used = View(ladder.target), *ladder._now()
        solution = Solution(gaussian_like(ladder.support.inside), "budget")
        step = ladder._add(view, "draws within", solution, ladder._weigh(view, solution), began, used, None)
    return step


def draws_within(ladder: Any, support: Support) -> Any:
    """The last step: a mixture fitted to draws from within, weighed; if that does not do, long slice-sampling chains."""
    view, step = View(ladder.target), None
    weighed_first = Slices(support.inside, weigh_it=True)
    for solver, name in ((weighed_first, "mixture of draws + importance"), (Slices(support.inside), "slices")):
        began, used = ladder._now()
        solution = ladder._unless_spent(ladder._solved, ladder.target, solver)
        if solution is None or solution.draws is None:
            break
        weighed = solution.findings.get("weighted") or ladder._weigh(view, solution)
        ladder.improper = ladder._improper(view, solution)
        testimony = ladder._witness(view, solution, weighed)
        step = ladder._add(view, name, solution, weighed, began, used, testimony)
        if not ladder._more():
            break
        ladder._climbs()
    return step
