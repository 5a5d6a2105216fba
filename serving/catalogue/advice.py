"""What an operator can do about an ID that is not served: the lines to write, which load as they
are."""

from __future__ import annotations


def alias_retired(name: str, provider: str, successor: str | None, *, known: bool) -> str:
    """How to serve a retired ID from another model, in one sentence without a full stop.

    Args:
        known: whether the successor has an entry.
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
    """How to deploy a known ID; `base` is what it sits on where that is not deployed either."""
    lines = f"`- {name}`" if base is None else f"`- {base}` and `- {name}`"
    return f"write {lines} under `models:` of the models file and run `serving apply`"
