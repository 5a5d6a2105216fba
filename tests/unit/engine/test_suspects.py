from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from serving.engine import suspects as suspects_module
from serving.engine.interface import Suspect
from serving.engine.suspects import Blame, RunningCalls
from serving.errors import EngineFailed, EngineKilled
from serving.observability.logs import Log
from serving.wire.fingerprint import Doubt, Fingerprint, fingerprint
from serving.wire.frames import Kind
from serving.wire.messages import CompletionCall, HttpCall, ImageRef, Sampling


def call(name: str = "r1") -> HttpCall:
    return HttpCall(name, "m", "POST", "/v1/completions")


class Engine:
    """An engine with running calls, each known by its name."""

    def __init__(self) -> None:
        self.now = 0.0
        self.accused: set[str] = set()
        self.doubted: dict[str, list[int]] = {}
        self.calls: RunningCalls[str] = RunningCalls(self.charges, lambda: self.now)

    def charges(self, name: str) -> list[int | None]:
        return [None] if name in self.accused else [*self.doubted.get(name, ())]

    def run(self, name: str, body: bytes = b"", error: BaseException | None = None) -> HttpCall:
        """Run a call to its end."""
        made = call(name)
        try:
            with self.calls.run(made, body, name):
                if error is not None:
                    raise error
        except (EngineFailed, asyncio.CancelledError, ValueError):
            pass
        return made

    def suspects(self) -> Any:
        return self.calls.look()

    @property
    def named(self) -> list[str]:
        return [suspect.call.request_id for suspect in self.suspects()]


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_nobody_is_suspected_while_the_engine_lives(engine: Engine) -> None:
    engine.run("a", error=EngineFailed("it gave this request up"))
    assert engine.named == []


def test_the_accused_is_named_and_its_neighbours_are_not(engine: Engine) -> None:
    engine.accused.add("b")
    for name in "abc":
        engine.run(name, error=EngineFailed("dead"))
    assert engine.named == ["b"]
    assert engine.named == ["b"], "once"


def test_a_call_that_still_runs_is_named(engine: Engine) -> None:
    with engine.calls.run(call("a"), b"", "a"), engine.calls.run(call("b"), b"", "b"):
        engine.accused.add("b")
        assert engine.named == ["b"]
    assert engine.named == ["b"]


def test_whoever_left_is_named_for_a_while(engine: Engine) -> None:
    engine.run("early", error=asyncio.CancelledError())
    engine.now = suspects_module.LEFT_S
    engine.run("late", error=asyncio.CancelledError())
    engine.accused |= {"early", "late"}
    assert engine.named == ["late"]


@pytest.mark.parametrize("error", [None, ValueError()])
def test_whoever_ended_otherwise_is_not_remembered(
    engine: Engine, error: BaseException | None
) -> None:
    engine.run("a", error=error)
    engine.accused.add("a")
    assert engine.named == []
    assert not engine.calls._running
    assert not engine.calls._left


def test_those_who_left_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects_module, "LEFT_BYTES", 1000)
    for number in range(2000):
        engine.run(str(number), error=asyncio.CancelledError())
    assert len(engine.calls._left) < suspects_module.LEFT_CALLS
    for number in range(20):
        engine.run(str(number), b"x" * 300, error=asyncio.CancelledError())
    assert sum(len(suspect.body) for _, _, suspect in engine.calls._left) <= 1000
    engine.run("large", b"x" * 5000, error=asyncio.CancelledError())
    engine.accused.add("large")
    assert engine.named == ["large"], "the newest is kept, however large"
    engine.now = suspects_module.LEFT_S
    engine.run("small", error=asyncio.CancelledError())
    assert engine.calls._left_bytes == 0


def test_prompts_and_images_of_those_who_left_count_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects_module, "LEFT_BYTES", 1000)
    image = ImageRef("data:" + "x" * 195)
    for number in range(20):
        made = CompletionCall(
            str(number), "m", "a" * 100, False, Sampling(), "m", images=(image, image)
        )
        with (
            pytest.raises(asyncio.CancelledError),
            engine.calls.run(made, b"", made.request_id),
        ):
            raise asyncio.CancelledError
    assert len(engine.calls._left) == 2
    engine.now = suspects_module.LEFT_S
    engine.run("small", error=asyncio.CancelledError())
    assert engine.calls._left_bytes == 0


class Told:
    """Who has been told what."""

    def __init__(self, engine: Any, log: Log) -> None:
        self.frames: list[tuple[Kind, bytes]] = []
        self.blame = Blame(engine, lambda *frame: self.frames.append(frame), log)

    @property
    def prints(self) -> list[set[Fingerprint]]:
        decode = msgspec.json.Decoder(set[Fingerprint]).decode
        return [decode(payload) for kind, payload in self.frames if kind == Kind.SUSPECTS]

    @property
    def doubts(self) -> list[set[Doubt]]:
        decode = msgspec.json.Decoder(set[Doubt]).decode
        return [decode(payload) for kind, payload in self.frames if kind == Kind.DOUBTS]


def test_those_in_doubt_are_told_with_their_places(engine: Engine, log: Log) -> None:
    """One of them is a call of several requests; their calls may be retried."""
    told = Told(engine, log)
    engine.doubted |= {"a": [0, 4], "b": [7]}
    error = EngineFailed("dead")
    a, b = (engine.run(name, name.encode(), error=error) for name in "ab")
    assert told.blame.error(a, error) is error
    assert told.blame.error(b, error) is error
    assert told.prints == []
    one, other = fingerprint(a, b"a"), fingerprint(b, b"b")
    assert told.doubts == [{Doubt(one, 0), Doubt(one, 4), Doubt(other, 7)}]


def test_a_convict_is_not_in_doubt(engine: Engine, log: Log) -> None:
    """A call of several requests, of which the engine died of one."""
    told = Told(engine, log)
    engine.charges = lambda name: [3, None]  # type: ignore[method-assign]
    engine.calls._charges = engine.charges
    made = engine.run("a", error=EngineFailed("dead"))
    assert isinstance(told.blame.error(made, EngineFailed("dead")), EngineKilled)
    assert told.prints == [{fingerprint(made, b"")}]
    assert told.doubts == []


def test_routers_hear_of_all_suspects_before_any_failure(engine: Engine, log: Log) -> None:
    told = Told(engine, log)
    error = EngineFailed("dead")
    assert told.blame.error(call("bystander"), error) is error
    assert told.frames == []
    engine.accused |= {"a", "b"}
    made = [engine.run(name, b"body of " + name.encode(), error=error) for name in "ab"]
    assert told.blame.error(call("bystander"), error) is error
    expected = {fingerprint(made[0], b"body of a"), fingerprint(made[1], b"body of b")}
    assert told.prints == [expected]
    assert isinstance(told.blame.error(made[0], error), EngineKilled)
    assert told.prints == [expected], "once"
    engine.accused.add("c")
    made.append(engine.run("c", b"body of c", error=error))
    assert isinstance(told.blame.error(made[2], error), EngineKilled)
    assert told.prints == [expected, {fingerprint(made[2], b"body of c")}]


def test_the_same_request_twice_is_one_fingerprint(engine: Engine, log: Log) -> None:
    told = Told(engine, log)
    engine.accused |= {"a", "b"}
    for name in "ab":
        engine.run(name, b"same", error=EngineFailed("dead"))
    told.blame.tell()
    assert [len(prints) for prints in told.prints] == [1]


def test_an_error_of_a_suspect_is_not_retryable(engine: Engine, log: Log) -> None:
    engine.accused.add("a")
    made = engine.run("a", error=EngineFailed("dead"))
    error = Told(engine, log).blame.error(made, EngineFailed("dead"))
    assert (error.status, error.code, error.retryable) == (500, "engine_killed_by_request", False)
    assert Suspect(made, b"") in engine.suspects()
