"""Tiny local models, trained in minutes on one CPU core, for the local profile."""
