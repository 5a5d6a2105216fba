"""The report of a run as one HTML file that needs nothing else."""

from loadtests.report_html.run import render

__all__ = ["render"]
