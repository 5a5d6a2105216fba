"""Sends a plan on time, in one process or many, and makes a summary of what came of it."""
