"""NetworkPolicies as Kubernetes defines them: who may open a connection to whom, and at which port.

kubernetes.io/docs/concepts/services-networking/network-policies: a pod that a policy of a direction
selects may do in that direction what one of these policies allows, and nothing else; both ends have
to allow a connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.helm.rendered import NAMESPACE, Object


@dataclass(frozen=True)
class End:
    """A pod, or with an address something that is none."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    address: str = ""


def may(policies: Iterable[Object], source: End, to: End, port: int, protocol: str = "TCP") -> bool:
    """Whether `source` may open a connection to `to`."""
    policies = list(policies)
    return _allowed(policies, "egress", source, to, port, protocol) and _allowed(
        policies, "ingress", to, source, port, protocol
    )


def _allowed(
    policies: list[Object], direction: str, pod: End, other: End, port: int, protocol: str
) -> bool:
    own = [
        policy["spec"]
        for policy in policies
        if pod.namespace == policy["metadata"]["namespace"]
        and not pod.address
        and direction.capitalize() in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not own:
        return True
    peers = "to" if direction == "egress" else "from"
    return any(
        _has_peer(rule.get(peers), other) and _has_port(rule.get("ports"), port, protocol)
        for spec in own
        for rule in spec.get(direction, ())
    )


def _has_peer(peers: list[Object] | None, other: End) -> bool:
    return peers is None or peers == [] or any(_is_peer(peer, other) for peer in peers)


def _is_peer(peer: Object, other: End) -> bool:
    if block := peer.get("ipBlock"):
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(each) for each in block.get("except", ())
        )
    if other.address:
        return False
    spaces = peer.get("namespaceSelector")
    if spaces is None:
        if other.namespace != NAMESPACE:
            return False
    elif not _selects(spaces, {"kubernetes.io/metadata.name": other.namespace}):
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _has_port(ports: list[Object] | None, port: int, protocol: str) -> bool:
    return ports is None or any(
        each["protocol"] == protocol and each["port"] <= port <= each.get("endPort", each["port"])
        for each in ports
    )


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for each in selector.get("matchExpressions", ()):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items())
