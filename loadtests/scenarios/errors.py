"""What is wrong with a scenario."""

from __future__ import annotations


class ScenarioError(ValueError):
    """A scenario cannot be used. Each line of its message says where, what, and how to mend it."""
