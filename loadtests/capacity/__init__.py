"""The highest rate at which a service meets its objectives, and how sure that is."""

from loadtests.capacity.model import Plan, Result, Trial
from loadtests.capacity.objective import Objective
from loadtests.capacity.searching import search

__all__ = ["Objective", "Plan", "Result", "Trial", "search"]
