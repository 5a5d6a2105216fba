"""Python's garbage collector, out of the way of the token path."""

from __future__ import annotations

import gc

# Every token makes a few objects that reference counting frees again; by default a collection
# follows every 700 that are alive at once, and a full one looks at every module and model again.
YOUNG = 20_000


def settle() -> None:
    """To be called once everything that stays has been made: collections then skip it, and come
    after `YOUNG` new objects. Cycles are still found."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
