"""Keeps the copies of a request together until one of them has ended well.

Until an engine has died of a request, nobody can know what it does. Clients that send one and the
same at the same moment would have it on every replica by then, and end them all. So while a request
runs that this router has not seen end well, its copies go to the replica that it runs on: they end
that one at most, and then quarantine knows them (`quarantine.py`, `doubts.py`). Routers do not tell
each other, so as many replicas may be lost as there are routers that were sent copies.

Copies are kept together by their likeness, which costs the same for every size: two requests that
are alike but not the same run on one replica for once, which harms neither.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.wire.body import Body
from serving.wire.fingerprint import size_of
from serving.wire.messages import Call, CompletionCall

# So many copies are kept together; more are spread over the replicas as all requests are. An engine
# runs so many beside each other without being late.
TOGETHER = 16
# So many characters of a prompt, or bytes of a body, at its start and at its end tell it apart.
PART = 2048
# Requests that have ended well are remembered, the last so many.
KNOWN = 4096


@dataclass(slots=True)
class _Group:
    """Copies that run: how many, and where the last one was sent."""

    running: int = 0
    replica: str = ""


class Copies:
    """The requests that one router has on replicas, and those that it has seen end well."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        # Hashes of likenesses; the oldest comes first.
        self._passed: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def replica(self, model: str, call: Call, body: Body) -> str | None:
        """The replica that a call has to share with its copies; None if it may run anywhere."""
        if not self._groups:
            return None
        key = _likeness(model, call, body)
        group = self._groups.get(key)
        if group is None or group.running >= TOGETHER or hash(key) in self._passed:
            return None
        return group.replica

    @contextmanager
    def sent(self, model: str, call: Call, body: Body, replica: str) -> Iterator[None]:
        """While the block runs, the call is on a replica; it ends well unless the block raises."""
        key = _likeness(model, call, body)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = group = _Group()
        group.running += 1
        group.replica = replica
        try:
            yield
            self._pass(hash(key))
        finally:
            group.running -= 1
            if not group.running:
                del self._groups[key]

    def _pass(self, known: int) -> None:
        self._passed[known] = None
        self._passed.move_to_end(known)
        if len(self._passed) > KNOWN:
            self._passed.popitem(last=False)


def _likeness(model: str, call: Call, body: Body) -> Hashable:
    """What copies of a call have in common, and hardly any other."""
    adapter = "" if call.adapter is None else call.adapter.id
    if isinstance(call, CompletionCall):
        what: str | bytes = call.prompt
    else:
        what = body if isinstance(body, bytes) else b""
    return model, adapter, size_of(call, body), what[:PART], what[-PART:]
