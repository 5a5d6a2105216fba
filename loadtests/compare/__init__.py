"""Two runs, or several of each, beside each other: what is better, worse, or noise."""

from loadtests.compare.judge import compare
from loadtests.compare.model import Comparison, Line
from loadtests.compare.reading import Run, Unreadable, read_run
from loadtests.compare.sameness import Incomparable

__all__ = ["Comparison", "Incomparable", "Line", "Run", "Unreadable", "compare", "read_run"]
