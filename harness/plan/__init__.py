"""From what the user selected to the runs it means: pure, and complete before anything starts.

`expand` is the whole of it; every mistake of the user is found in it, before a run starts.
"""

from harness.plan.runs import expand
from harness.plan.selection import Selection, named_protocol
from harness.plan.settings import recipe_for, settings_for

__all__ = ["Selection", "expand", "named_protocol", "recipe_for", "settings_for"]
