"""`serving accounts` and `serving keys`: what is sent, and what is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.unit.cli.conftest import Recorder, answers, run

ACCOUNT = {
    "id": "acme",
    "name": "Acme",
    "enforcement": None,
    "weight": 4.0,
    "disabled": False,
    "created_at": "2026-11-29T12:00:00+00:00",
}
KEY: dict[str, Any] = {
    "id": "svk_0123456789AB",
    "name": "web",
    "account_id": "acme",
    "role": "use",
    "state": "active",
    "models": ["tiny-*"],
    "endpoints": None,
    "networks": [],
    "created_at": "2026-11-29T12:00:00+00:00",
    "expires_at": "2027-01-31T00:00:00+00:00",
    "revoked_at": None,
    "last_used_at": None,
    "secrets": [],
}
ROW = (
    "svk_0123456789AB  web   acme     use   active  models=tiny-* networks=  "
    "2027-01-31 00:00          -"
)


def sent(recorder: Recorder, *args: str) -> tuple[str, str, Any]:
    result = run(recorder, *args)
    assert result.exit_code == 0, result.output
    request = recorder.request
    return request.method, request.url.raw_path.decode(), json.loads(request.content or b"null")


@pytest.mark.parametrize(
    ("args", "method", "path", "body"),
    [
        (
            ("create", "acme"),
            "POST",
            "/v4/admin/accounts",
            {"id": "acme", "name": None, "enforcement": None, "weight": None},
        ),
        (
            ("change", "a/b", "--disable", "--enforcement", "default"),
            "PATCH",
            "/v4/admin/accounts/a%2Fb",
            {"enforcement": None, "disabled": True},
        ),
        (("change", "acme", "--enable"), "PATCH", "/v4/admin/accounts/acme", {"disabled": False}),
        (
            ("change", "acme", "--weight", "0.5"),
            "PATCH",
            "/v4/admin/accounts/acme",
            {"weight": 0.5},
        ),
    ],
)
def test_accounts(args: tuple[str, ...], method: str, path: str, body: Any) -> None:
    assert sent(Recorder(ACCOUNT), "accounts", *args) == (method, path, body)


def test_an_account_is_shown() -> None:
    assert run(answers(200, ACCOUNT), "accounts", "create", "acme").stdout.splitlines() == [
        "ACCOUNT  NAME  ENFORCEMENT  WEIGHT  STATE   CREATED",
        "acme     Acme            -       4  active  2026-11-29 12:00",
    ]


@pytest.mark.parametrize(
    ("args", "method", "path", "body"),
    [
        (("create",), "POST", "", {"name": "", "role": "use"}),
        (
            (
                *("create", "--name", "web", "--account", "acme", "--role", "read"),
                *("--model", "a", "--model", "b*", "--endpoint", "/v1/*"),
                *("--network", "::1", "--expires", "2027-01-31", "--priority", "batch"),
            ),
            "POST",
            "",
            {
                "name": "web",
                "role": "read",
                "account_id": "acme",
                "expires_at": "2027-01-31T00:00:00+00:00",
                "models": ["a", "b*"],
                "endpoints": ["/v1/*"],
                "networks": ["::1"],
                "priorities": ["batch"],
            },
        ),
        (
            ("change", "svk_x", "--model", "a", "--no-limit", "networks", "--no-expiry"),
            "PATCH",
            "/svk_x",
            {"expires_at": None, "models": ["a"], "networks": None},
        ),
        (("rotate", "svk_x"), "POST", "/svk_x/rotate", {"overlap_s": 86_400}),
        (("rotate", "svk_x", "--overlap", "0s"), "POST", "/svk_x/rotate", {"overlap_s": 0}),
        (("revoke", "svk_x"), "POST", "/svk_x/revoke", {}),
    ],
)
def test_keys(args: tuple[str, ...], method: str, path: str, body: Any) -> None:
    recorder = Recorder({**KEY, "key": "svk_secret"})
    assert sent(recorder, "keys", *args) == (method, f"/v4/admin/keys{path}", body)


def test_a_whole_key_is_not_sent_in_a_url() -> None:
    whole = "svk_0123456789AB_" + "s" * 49
    _, path, _ = sent(Recorder(KEY), "keys", "revoke", whole)
    assert path == "/v4/admin/keys/svk_0123456789AB/revoke"


@pytest.mark.parametrize("command", [("create",), ("rotate", "svk_x")])
def test_a_new_key_is_alone_on_stdout(command: tuple[str, ...]) -> None:
    answer = {**KEY, "key": "svk_secret"}
    result = run(answers(200, answer), "keys", *command)
    assert result.stdout == "svk_secret\n"
    assert "not shown again" in result.stderr
    assert "svk_secret" not in result.stderr
    assert json.loads(run(answers(200, answer), "keys", *command, "--json").stdout) == answer


def test_keys_are_shown() -> None:
    result = run(answers(200, KEY), "keys", "revoke", "svk_x")
    header, row = result.stdout.splitlines()
    assert header.split()[:3] == ["KEY", "NAME", "ACCOUNT"]
    assert row == ROW


def test_a_list_comes_in_pages() -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        page = int(request.url.params["page"])
        items = [{**KEY, "id": f"k{number}"} for number in range(page * 2 - 2, min(page * 2, 5))]
        return httpx.Response(200, json={"items": items, "total_item_count": 5})

    result = run(handler, "keys", "list", "--account", "a&b", "--json")
    assert [key["id"] for key in json.loads(result.stdout)] == ["k0", "k1", "k2", "k3", "k4"]
    assert asked == [f"account_id=a%26b&limit=1000&page={page}" for page in (1, 2, 3)]


def test_a_time_from_now() -> None:
    recorder = Recorder({**KEY, "key": "x"})
    run(recorder, "keys", "create", "--expires", "90d")
    away = datetime.fromisoformat(recorder.sent["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < away <= timedelta(days=90)


@pytest.mark.parametrize(
    "args",
    [
        ("create", "--expires", "soon"),
        ("create", "--expires", "999999999d"),
        ("create", "--role", "king"),
        ("rotate", "svk_x", "--overlap", "1 day"),
        ("change", "svk_x", "--no-limit", "roles"),
    ],
)
def test_wrong_usage(args: tuple[str, ...]) -> None:
    assert run(answers(200, KEY), "keys", *args).exit_code == 2


def test_a_refusal_is_told() -> None:
    envelope = {"error": {"message": "this takes an API key with the role 'admin'"}}
    result = run(answers(403, envelope), "keys", "list")
    assert result.exit_code == 1
    assert "role 'admin'" in result.stderr


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (("accounts", "quota", "a/b"), "/v4/admin/accounts/a%2Fb"),
        (("keys", "quota", "svk_x"), "/v4/admin/keys/svk_x"),
    ],
)
def test_quotas_are_set_and_shown(args: tuple[str, ...], path: str) -> None:
    asked: list[tuple[str, str, Any]] = []
    quota = {"requests_per_minute": 600, "cost_per_day": "25.00"}
    used = {"cost_per_day": {"used": "1.25", "resets_at": "2026-12-01T00:00:00+00:00"}}

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content or b"null")
        asked.append((request.method, request.url.raw_path.decode(), body))
        return httpx.Response(200, json={**KEY, **ACCOUNT, "quota": quota, "used": used})

    result = run(
        handler, *args, "requests_per_minute=600", "cost_per_day=25", "tokens_per_day=none"
    )
    given = {"requests_per_minute": 600, "cost_per_day": "25", "tokens_per_day": None}
    assert asked == [("PATCH", path, {"quota": given}), ("GET", path, None)]
    assert [line.split(maxsplit=3) for line in result.stdout.splitlines()] == [
        ["LIMIT", "VALUE", "USED", "BEGINS ANEW"],
        ["requests_per_minute", "600", "-", "-"],
        ["cost_per_day", "25.00", "1.25", "2026-12-01 00:00"],
    ]
    asked.clear()
    run(handler, *args)
    assert asked == [("GET", path, None)]


@pytest.mark.parametrize("limit", ["tokens_per_day", "=5", "tokens_per_day="])
def test_a_quota_that_is_not_understood(limit: str) -> None:
    assert run(answers(200, ACCOUNT), "accounts", "quota", "acme", limit).exit_code == 2
