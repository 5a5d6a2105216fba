from __future__ import annotations

import io
from contextlib import ExitStack

import pytest

from serving.errors import ClientLeft
from serving.router.copies import KNOWN, PART, TOGETHER, Copies
from serving.wire.body import Body
from serving.wire.messages import AdapterRef, Call, CompletionCall, HttpCall, Sampling


def asking(prompt: str, adapter: str | None = None) -> CompletionCall:
    ref = None if adapter is None else AdapterRef(adapter, "/adapters")
    return CompletionCall("r1", "m", prompt, False, Sampling(), "m", adapter=ref)


def posting(path: str = "/v1/completions") -> HttpCall:
    return HttpCall("r1", "m", "POST", path)


class OnDisk(io.BytesIO):
    def __len__(self) -> int:
        return len(self.getvalue())

    def read(self, at: int | None = -1, size: int = 0) -> bytes:
        raise AssertionError("a likeness reads nothing from disk")


def ends_well(copies: Copies, call: Call, body: Body = b"", model: str = "m") -> None:
    with copies.sent(model, call, body, "1"):
        pass


def test_copies_follow_the_one_that_runs_and_nobody_else_does() -> None:
    copies = Copies()
    assert copies.replica("m", asking("x"), b"") is None
    with copies.sent("m", asking("x"), b"", "1"):
        assert copies.replica("m", asking("x"), b"") == "1"
        assert copies.replica("m", asking("y"), b"") is None
        assert copies.replica("m", asking("xx"), b"") is None
        assert copies.replica("other", asking("x"), b"") is None
        assert copies.replica("m", asking("x", "adapter"), b"") is None
    assert not len(copies), "nothing runs, nothing is kept"


def test_a_body_is_told_by_its_bytes() -> None:
    copies = Copies()
    with copies.sent("m", posting(), b"{1}", "1"):
        assert copies.replica("m", posting(), b"{1}") == "1"
        assert copies.replica("m", posting(), b"{2}") is None


@pytest.mark.parametrize("at", [0, PART - 1, 3 * PART - 1, 2 * PART])
def test_large_requests_are_told_apart_by_their_ends(at: int) -> None:
    copies = Copies()
    prompt = "x" * 3 * PART
    with copies.sent("m", asking(prompt), b"", "1"):
        assert copies.replica("m", asking(prompt), b"") == "1"
        assert copies.replica("m", asking(prompt[:at] + "y" + prompt[at + 1 :]), b"") is None


def test_a_body_on_disk_is_not_read() -> None:
    copies = Copies()
    with copies.sent("m", posting(), OnDisk(b"12"), "1"):
        assert copies.replica("m", posting(), OnDisk(b"12")) == "1"
        assert copies.replica("m", posting(), OnDisk(b"123")) is None


def test_the_last_one_sent_says_where() -> None:
    """The one before may have lost its replica, and be the one that was sent again."""
    copies = Copies()
    with copies.sent("m", asking("x"), b"", "1"), copies.sent("m", asking("x"), b"", "2"):
        assert copies.replica("m", asking("x"), b"") == "2"


def test_what_has_ended_well_is_spread_from_then_on() -> None:
    copies = Copies()
    with copies.sent("m", asking("x"), b"", "1"):
        ends_well(copies, asking("x"))
        assert copies.replica("m", asking("x"), b"") is None
    with copies.sent("m", asking("x"), b"", "1"):
        assert copies.replica("m", asking("x"), b"") is None
    with copies.sent("other", asking("x"), b"", "1"):
        assert copies.replica("other", asking("x"), b"") == "1", "of another model it says nothing"


def test_what_has_failed_is_not_spread() -> None:
    copies = Copies()
    with pytest.raises(ClientLeft), copies.sent("m", asking("x"), b"", "1"):
        raise ClientLeft("")
    with copies.sent("m", asking("x"), b"", "1"):
        assert copies.replica("m", asking("x"), b"") == "1"


def test_more_than_one_engine_bears_are_spread() -> None:
    copies = Copies()
    with ExitStack() as running:
        for _ in range(TOGETHER):
            assert copies.replica("m", asking("x"), b"") in (None, "1")
            running.enter_context(copies.sent("m", asking("x"), b"", "1"))
        assert copies.replica("m", asking("x"), b"") is None


def test_the_memory_of_what_ended_well_is_bounded() -> None:
    copies = Copies()
    ends_well(copies, asking("first"))
    for number in range(KNOWN):
        ends_well(copies, asking(str(number)))
    with copies.sent("m", asking("first"), b"", "1"):
        assert copies.replica("m", asking("first"), b"") == "1", "the oldest is forgotten"
    with copies.sent("m", asking("1"), b"", "1"):
        assert copies.replica("m", asking("1"), b"") is None


def test_what_ends_well_again_stays_known() -> None:
    copies = Copies()
    ends_well(copies, asking("first"))
    for number in range(KNOWN):
        ends_well(copies, asking("first"))
        ends_well(copies, asking(str(number)))
    with copies.sent("m", asking("first"), b"", "1"):
        assert copies.replica("m", asking("first"), b"") is None
