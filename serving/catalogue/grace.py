"""How long each part waits for the next when something is taken down, from the models file alone.

    drain_s          requests that run may go on
    router_s         = leave_s + drain_s, and what closing takes: Serve's deadline for a router
    engine_s         = a lease's end (Serve waits for calls to a replica before it tells it to stop)
                       + drain_s, and what the engine takes to end: Serve's deadline for an engine
    node.drain_s     = a replacement's start + the longest deadline of a replica on the node
    node.termination_s = that, and what ends Ray's processes: Kubernetes' deadline for the pod

Each deadline is later than what it waits for can take, so none cuts another short. All are upper
bounds: whoever is done earlier ends earlier.

On a node that is told to end, Ray has Serve start every replica anew on another node, and only
then stop the old one; from `graceful_shutdown_timeout_s` before the end of the node's drain time
Serve waits for no replacement any more (`_choose_pending_migration_replicas_to_stop` in
`ray/serve/_private/deployment_state.py`, Ray 2.60). So the drain time has to hold both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from serving.catalogue.catalogue import Catalogue

# Serve waits for a lease on an engine's replica (deployments/leases.py) to end before it tells the
# replica to stop. A lease is renewed this often.
LEASE_S = 5.0
# Time beyond the drain in which an engine frees its memory.
ENGINE_STOP_S = 10.0
# Time beyond the drain in which a router writes its ledger and closes what it has open.
ROUTER_STOP_S = 10.0
# Serve waits this much longer for a replica to stop than the replica takes at most.
SERVE_MARGIN_S = 5.0
# From the deployment of a router to its first request, with room for a cold image.
ROUTER_START_S = 60.0
# Serve hears of a draining node at its next look, and stops replicas at the one after.
NOTICE_S = 5.0
# Ray gives each of its processes a second, one after the other, before it kills them.
TEARDOWN_S = 20.0


@dataclass(frozen=True)
class NodeGrace:
    """What a node (a pod of KubeRay's) is given, in whole seconds.

    Attributes:
        drain_s: for `RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S`, on that node.
        termination_s: for `terminationGracePeriodSeconds`; there must be no preStop hook, whose
            time Kubernetes would take off this.
    """

    drain_s: int
    termination_s: int


@dataclass(frozen=True)
class Grace:
    """Everything that waits, in seconds.

    Attributes:
        leave_s: how long the last router of a machine accepts connections while `/ready` and
            `/-/healthz` say 503.
        drain_s: how long requests may go on after that.
        router_s, engine_s: `graceful_shutdown_timeout_s` of routers and engines.
        router_node: of nodes that run routers and no engine.
        engine_node: of all other nodes.
    """

    leave_s: float
    drain_s: float
    router_s: float
    engine_s: float
    router_node: NodeGrace
    engine_node: NodeGrace


def grace(catalogue: Catalogue) -> Grace:
    """All times of a catalogue, from `drain_s`, `router.leave_s` and its models' `start_timeout_s`.

    For no request to be cut off, `drain_s` has to be at least as long as a request may take:
    `SERVING_REQUEST_TIMEOUT_S`.
    """
    drain_s, leave_s = catalogue.drain_s, catalogue.router.leave_s
    router_s = leave_s + drain_s + ROUTER_STOP_S + SERVE_MARGIN_S
    engine_s = LEASE_S + drain_s + ENGINE_STOP_S + SERVE_MARGIN_S
    start_s = max((spec.start_timeout_s for spec in catalogue.engines), default=0.0)
    return Grace(
        leave_s=leave_s,
        drain_s=drain_s,
        router_s=router_s,
        engine_s=engine_s,
        router_node=_node(ROUTER_START_S, router_s),
        engine_node=_node(max(start_s, ROUTER_START_S), max(engine_s, router_s)),
    )


def _node(start_s: float, replica_s: float) -> NodeGrace:
    drain_s = math.ceil(start_s + NOTICE_S + replica_s)
    return NodeGrace(drain_s, math.ceil(drain_s + TEARDOWN_S))
