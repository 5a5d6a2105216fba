"""What a key may be used for: some models, endpoints and priorities, from some networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NAMES = ("models", "endpoints", "networks", "priorities")
# What decides whose turn it is where requests wait, the higher one first.
INTERACTIVE, BATCH = PRIORITIES = ("interactive", "batch")
MAX_PATTERNS, MAX_CHARS = 100, 256


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of one key; None: there is none of that kind, and an empty list lets nothing pass.

    Args:
        models: model IDs; `*` stands for any characters.
        endpoints: paths as the table of endpoints has them, with `*` too.
        networks: addresses and networks, as `10.0.0.0/8`.
        priorities: those that its requests may have; the higher one is that of a request that names
            none.

    Raises:
        ValueError: a pattern or network is not valid. The first word of the message is the kind.
    """

    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    priorities: tuple[str, ...] | None = None
    _model: Callable[[str], object] | None = field(init=False, repr=False, compare=False)
    _endpoint: Callable[[str], object] | None = field(init=False, repr=False, compare=False)
    _networks: tuple[Network, ...] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in NAMES:
            _check(name, getattr(self, name))
        if unknown := set(self.priorities or ()) - set(PRIORITIES):
            raise ValueError(f"priorities: '{min(unknown)}' is none of {', '.join(PRIORITIES)}")
        object.__setattr__(self, "_model", _matcher(self.models))
        object.__setattr__(self, "_endpoint", _matcher(self.endpoints))
        networks = None if self.networks is None else read_networks("networks", self.networks)
        object.__setattr__(self, "_networks", networks)

    @classmethod
    def of(cls, stored: Mapping[str, Sequence[str] | None]) -> KeyLimits:
        """The limits that `stored` has written down. Raises as the class."""
        given = {name: stored.get(name) for name in NAMES}
        return cls(**{n: None if v is None else tuple(v) for n, v in given.items()})

    @property
    def stored(self) -> dict[str, list[str]]:
        """Those that there are, by name."""
        given = {name: getattr(self, name) for name in NAMES}
        return {name: list(value) for name, value in given.items() if value is not None}

    def allow_model(self, model: str) -> bool:
        """True if the key may use a model ID."""
        return self._model is None or self._model(model) is not None

    def allow_endpoint(self, path: str) -> bool:
        """True if the key may be used at a path of the table of endpoints."""
        return self._endpoint is None or self._endpoint(path) is not None

    def allow_priority(self, priority: str) -> bool:
        """True if requests of the key may have a priority."""
        return self.priorities is None or priority in self.priorities

    def allow_address(self, address: Address | None) -> bool:
        """True if the key may be used from an address; None: nobody knows from where."""
        if self._networks is None:
            return True
        return address is not None and any(address in network for network in self._networks)


def read_networks(what: str, texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation, or single addresses.

    Raises:
        ValueError: one is not valid; `what` begins the message.
    """
    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise ValueError(f"{what}: {error}; write addresses as 10.0.0.0/8 or ::1") from None
    return tuple(found)


def _check(name: str, values: Sequence[str] | None) -> None:
    if values is None:
        return
    if len(values) > MAX_PATTERNS:
        raise ValueError(f"{name}: has {len(values)} items; at most {MAX_PATTERNS} are taken")
    for value in values:
        if not value or len(value) > MAX_CHARS or not value.isprintable():
            raise ValueError(f"{name}: an item has 1 to {MAX_CHARS} printable characters")


def _matcher(patterns: Sequence[str] | None) -> Callable[[str], object] | None:
    if patterns is None:
        return None
    parts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    # Without a pattern, what nothing matches.
    return re.compile("|".join(parts) if patterns else r"(?!)", re.DOTALL).fullmatch


UNLIMITED = KeyLimits()
