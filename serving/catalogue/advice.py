"""Advice for operators on serving an ID that is not served: lines they can copy into a models
file."""

from __future__ import annotations


def alias_retired(name: str, provider: str, successor: str | None, *, known: bool) -> str:
    """Say how to serve a retired ID from another model: one sentence, without its full stop.

    Args:
        known: the catalogue has an entry for the successor.
    """
    if successor is None:
        return f"to serve this ID from another model write `aliases: {{{name}: ANOTHER-ID}}`"
    full = f"{{id: {successor}, kind: upstream, provider: {provider}}}"
    entry = successor if known else full
    return (
        f"to serve this ID from its successor write `- {entry}` under `models:` and "
        f"`aliases: {{{name}: {successor}}}`"
    )


def deploy(name: str, base: str | None) -> str:
    """Say how to deploy a known ID. `base` is an adapter's base if it must be deployed too."""
    lines = f"`- {name}`" if base is None else f"`- {base}` and `- {name}`"
    return f"write {lines} under `models:` of the models file and run `serving apply`"
