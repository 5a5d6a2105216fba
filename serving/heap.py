"""Python's garbage collector, out of the way of the token path."""

from __future__ import annotations

import gc

# Reference counting frees the few objects that a token makes. By default the collector still runs
# whenever 700 new objects are alive, and a full collection visits every module and model.
YOUNG = 20_000


def settle() -> None:
    """Call this when every long-lived object has been made. Collections then skip these objects
    and run after `YOUNG` new ones. Cycles among new objects are still found."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
