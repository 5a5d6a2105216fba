"""Nodes as Kubernetes' scheduler sees them: which pods they are for.

kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node and .../taint-and-toleration: a node
has every label that a pod selects, and the pod bears every taint of the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.helm.rendered import Object, Pod


@dataclass(frozen=True)
class Node:
    """A taint is (key, value, effect)."""

    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str, str], ...] = ()


def takes(node: Node, pod: Pod) -> bool:
    """Whether the pod may be put on the node, as far as labels and taints say."""
    selected = pod.spec.get("nodeSelector", {})
    affinity = pod.spec.get("affinity", {}).get("nodeAffinity")
    return (
        all(node.labels.get(key) == value for key, value in selected.items())
        and (affinity is None or _attracts(affinity, node))
        and all(_bears(pod.spec.get("tolerations", ()), taint) for taint in node.taints)
    )


def _attracts(affinity: Object, node: Node) -> bool:
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return any(all(_fits(each, node) for each in term["matchExpressions"]) for term in terms)


def _fits(expression: Object, node: Node) -> bool:
    assert expression["operator"] == "Gt"
    (least,) = expression["values"]
    return int(node.labels.get(expression["key"], "0")) > int(least)


def _bears(tolerations: list[Object], taint: tuple[str, str, str]) -> bool:
    key, value, effect = taint
    return any(
        each.get("key", key) == key
        and each.get("effect", effect) == effect
        and (each.get("operator", "Equal") == "Exists" or each.get("value", "") == value)
        for each in tolerations
    )
