"""Intervals for what depends on time: requests of one run wait for each other."""
