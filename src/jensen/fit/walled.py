"""The rungs of a density that ends at walls along which there are no simple coordinates."""

from typing import Any

from ..samplers.slices import Slices
from ..samplers.walls import Support
from .view import View


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
