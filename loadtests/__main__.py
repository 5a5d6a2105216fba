"""`python -m loadtests` is the `loadtest` command."""

from __future__ import annotations

from loadtests.main import main

main(prog_name="loadtest")
