from __future__ import annotations

import json

from tests.unit.cli.conftest import MODELS, Recorder, answers, openai_model, run


def test_models_tells_kind_and_base_from_parent_and_root() -> None:
    result = run(answers(200, MODELS), "models")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ID        KIND     BASE  CONTEXT  TOOLS   REASONING",
        "tiny      engine   -        2048  hermes          -",
        "tiny.law  adapter  tiny     2048  -               -",
        "latest    alias    tiny        -  -               -",
    ]


def test_models_json_is_the_answer() -> None:
    assert json.loads(run(answers(200, MODELS), "models", "--json").stdout) == MODELS


EVERYTHING = {
    "object": "list",
    "data": [
        openai_model("tiny", root="tiny", parent=None, max_model_len=2048)
        | {"kind": "engine", "deployed": True}
        | {"tool_parser": "hermes", "reasoning_parser": "deepseek_r1"},
        openai_model("tiny.law", parent="tiny", max_model_len=2048)
        | {"kind": "adapter", "deployed": True},
        openai_model("latest", root="tiny", max_model_len=2048) | {"kind": "alias"},
        openai_model("falcon-7b", max_model_len=2048) | {"kind": "engine", "deployed": False},
        openai_model("gpt-4o") | {"kind": "upstream", "deployed": True, "provider": "openai"},
        openai_model("gpt-4")
        | {"kind": "retired", "deployed": False, "provider": "openai"}
        | {"retired_on": "2026-10-23", "successor": "gpt-5"},
        openai_model("old-1") | {"kind": "retired", "provider": "openai"},
    ],
}


def test_models_all_lists_what_is_known() -> None:
    server = Recorder(EVERYTHING)
    result = run(server, "models", "--all")
    assert str(server.request.url).endswith("/v1/models?all=true")
    assert result.stdout.splitlines() == [
        "ID         KIND      STATE               RELATED  CONTEXT  TOOLS   REASONING",
        "tiny       engine    deployed            -           2048  hermes  deepseek_r1",
        "tiny.law   adapter   deployed            tiny        2048  -       -",
        "latest     alias     deployed            tiny        2048  -       -",
        "falcon-7b  engine    known               -           2048  -       -",
        "gpt-4o     upstream  deployed            openai         -  -       -",
        "gpt-4      retired   retired 2026-10-23  gpt-5          -  -       -",
        "old-1      retired   retired             openai         -  -       -",
    ]


def test_models_all_of_a_server_that_knows_no_more() -> None:
    result = run(answers(200, MODELS), "models", "--all")
    assert result.stdout.splitlines()[1:] == [
        "tiny      engine   deployed  -           2048  hermes          -",
        "tiny.law  adapter  deployed  tiny        2048  -               -",
        "latest    alias    deployed  tiny           -  -               -",
    ]


def test_models_all_json_is_the_answer() -> None:
    assert json.loads(run(answers(200, EVERYTHING), "models", "--all", "--json").stdout) == (
        EVERYTHING
    )
