"""Tries the requests of a group whose first step failed, each by itself: see
`serving/engine/vllm/core_trials.py`."""

from __future__ import annotations

from collections.abc import Sequence

from serving.engine.hf.rows import Rows
from serving.engine.hf.sampling import Sampler, choose


def raise_alone(rows: Rows, group: Sequence[tuple[list[int], Sampler]]) -> list[bool] | None:
    """For each request, its prompt and sampler, whether the model raises when it runs alone. None
    if that cannot be said: the model raises whatever it runs. Nothing else can run afterwards."""
    guilty: list[bool] = []
    for prompt, sampler in group:
        if _raises(rows, prompt[:1], None):
            return guilty + [False] * (len(group) - len(guilty)) if any(guilty) else None
        guilty.append(_raises(rows, prompt, sampler))
    return guilty


def _raises(rows: Rows, prompt: list[int], sampler: Sampler | None) -> bool:
    try:
        rows.keep(())
        logits = rows.admit([prompt])
        if sampler is not None:
            choose(logits, [sampler])
    except Exception:  # noqa: BLE001 - that it raises is all that is asked
        return True
    return False
