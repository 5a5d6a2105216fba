"""The heads and first lines here are those of the published files."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from loadtests.load import traces
from loadtests.load.traces import REORDERED, Row, check, rows
from loadtests.scenarios.arrivals import Trace
from loadtests.scenarios.errors import ScenarioError

MOONCAKE = """\
{"timestamp": 0, "input_length": 4834, "output_length": 173, "hash_ids": [0, 59, 60, 61, 62, 63, \
64, 65, 66, 67]}
{"timestamp": 0, "input_length": 2290, "output_length": 316, "hash_ids": [0, 42, 43, 44, 45]}
{"timestamp": 3000, "input_length": 915, "output_length": 355, "hash_ids": [0, 462]}
{"timestamp": 5999, "input_length": 1053, "output_length": 26, "hash_ids": [0, 773, 774]}
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,API log
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:33.4590290,1555,19
"""


def trace(tmp_path: Path, kind: str, text: str, **fields: object) -> Trace:
    path = tmp_path / "trace"
    path.write_text(text)
    return Trace.model_validate({"kind": "trace", "format": kind, "path": str(path), **fields})


def read(found: Trace, seconds: float = 1e9) -> list[Row]:
    return list(rows(found, seconds))


def test_mooncake(tmp_path: Path) -> None:
    found = read(trace(tmp_path, "mooncake", MOONCAKE))
    assert found == [
        Row(0.0, 1, 4834, 173, (0, *range(59, 68))),
        Row(0.0, 2, 2290, 316, (0, 42, 43, 44, 45)),
        Row(3.0, 3, 915, 355, (0, 462)),
        Row(5.999, 4, 1053, 26, (0, 773, 774)),
    ]


def test_burstgpt_begins_with_its_first_request(tmp_path: Path) -> None:
    found = read(trace(tmp_path, "burstgpt", BURSTGPT))
    assert found == [Row(0.0, 2, 472, 18), Row(40.0, 3, 1087, 230), Row(113.0, 4, 417, 1)]


def test_burstgpt_with_columns_to_come(tmp_path: Path) -> None:
    text = "Session ID,Timestamp,Elapsed time,Model,Request tokens,Response tokens\n7,1,2,x,3,4\n"
    assert read(trace(tmp_path, "burstgpt", text)) == [Row(0.0, 2, 3, 4)]


def test_azure_has_tenths_of_microseconds(tmp_path: Path) -> None:
    found = read(trace(tmp_path, "azure", AZURE))
    assert [row.prompt_tokens for row in found] == [4808, 3180, 1555]
    assert [row.output_tokens for row in found] == [10, 8, 19]
    assert [row.at_s for row in found] == pytest.approx([0, 0.052, 29.479069], abs=1e-6)


def test_azure_of_2024_has_a_zone(tmp_path: Path) -> None:
    text = AZURE.splitlines()[0] + (
        "\n2024-05-10 23:59:59.500000+00:00,1,2\n2024-05-11 00:00:00+00:00,3,4\n"
    )
    found = read(trace(tmp_path, "azure", text))
    assert [row.at_s for row in found] == pytest.approx([0, 0.5], abs=1e-6)


def test_speed_limit_and_the_end_of_the_phase(tmp_path: Path) -> None:
    found = trace(tmp_path, "mooncake", MOONCAKE, speed=2)
    assert [row.at_s for row in read(found)] == [0.0, 0.0, 1.5, 2.9995]
    assert len(read(found, seconds=1.5)) == 2
    assert len(read(trace(tmp_path, "mooncake", MOONCAKE, limit=1))) == 1


def test_lines_a_little_out_of_order_are_sorted(tmp_path: Path) -> None:
    order = list(range(3000))
    Random(1).shuffle(order)
    lines = [f"{at},x,1,{at + 1},0,x" for at in order]
    found = read(trace(tmp_path, "burstgpt", "\n".join([BURSTGPT.splitlines()[0], *lines])))
    assert [row.at_s for row in found] == list(range(3000))
    assert [row.output_tokens for row in found] == list(range(1, 3001))


def test_a_line_far_out_of_order_is_named(tmp_path: Path) -> None:
    lines = [f"{at},x,1,1,0,x" for at in [*range(10, REORDERED + 20), 3]]
    found = trace(tmp_path, "burstgpt", "\n".join([BURSTGPT.splitlines()[0], *lines]))
    with pytest.raises(ScenarioError, match=rf"trace:{len(lines) + 1}: earlier by \d+ s"):
        read(found)


def test_a_long_trace_is_read_along_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{at},x,1,1,0,x" for at in range(50_000)]
    seen = 0

    def clock(text: str) -> float:
        nonlocal seen
        seen += 1
        return float(text)

    monkeypatch.setitem(
        traces.READERS,
        "burstgpt",
        lambda path, file: traces._table(
            path, file, "x", ("Timestamp", "Request tokens", "Response tokens"), clock
        ),
    )
    found = trace(tmp_path, "burstgpt", "\n".join([BURSTGPT.splitlines()[0], *lines]))
    assert len(read(found, seconds=100)) == 100
    assert seen < 2 * REORDERED


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("mooncake", '{"timestamp": 0}\n', ":1: not a request of the format mooncake: no 'input_"),
        ("mooncake", MOONCAKE + "nonsense\n", ":5: not a request of the format mooncake"),
        ("mooncake", "[]\n", ":1: not a request of the format mooncake"),
        ("mooncake", "\n", ":1: the trace has no requests"),
        ("burstgpt", BURSTGPT + "soon,x,1,1\n", ":5: not a request of the format burstgpt"),
        ("burstgpt", BURSTGPT + "7\n", ":5: not a request of the format burstgpt"),
        ("burstgpt", AZURE, ":1: a trace of the format burstgpt has the columns Timestamp, Requ"),
        ("azure", BURSTGPT, "missing here: TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("azure", AZURE + "yesterday,1,2\n", ":5: not a request of the format azure"),
        ("azure", AZURE.splitlines()[0], ":1: the trace has no requests"),
        ("azure", "", "missing here: TIMESTAMP"),
    ],
    ids=range(11),
)
def test_what_is_no_trace(tmp_path: Path, kind: str, text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        check(trace(tmp_path, kind, text))
    assert message in str(error.value)
    assert str(tmp_path / "trace") in str(error.value)
