"""Checks for parts of one's own: what jensen's own parts are held to, for a model, family, plan, estimator or method of yours.

Each raises `Wrong`, an AssertionError, whose message says what was asked, what is wrong, why it matters and what to write
instead; so they are tests as they stand:

    from jensen import testing

    def test_my_family():
        testing.check_family(MyFamily(), {"a": (2,)})

Statistical ones allow `Z` standard errors, about one false alarm in a million checks, and all are functions of `seed`.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .base import Wrong as Wrong
    from .families import check_family as check_family
    from .gradients import check_estimator as check_estimator
    from .gradients import check_plan as check_plan
    from .methods import check_method as check_method
    from .models import check_model as check_model

__getattr__, __dir__, __all__ = lazily(__name__)
