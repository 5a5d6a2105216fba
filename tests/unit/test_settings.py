from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from serving.settings import LOCAL_KEY, Settings, is_loopback


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SERVING_"):
            monkeypatch.delenv(name)


def test_defaults() -> None:
    settings = Settings()
    assert settings.account_policy == "off"
    assert settings.api_keys.get_secret_value() == ""
    assert settings.max_body_bytes == 32 * 1024 * 1024


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_KEEPALIVE_S", "2.5")
    monkeypatch.setenv("SERVING_ACCOUNT_POLICY", "enforce")
    settings = Settings()
    assert (settings.keepalive_s, settings.account_policy) == (2.5, "enforce")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVING_ACCOUNT_POLICY", "sometimes"),
        ("SERVING_MAX_BODY_BYTES", "0"),
        ("SERVING_MAX_BODY_BYTES", str(64 * 1024 * 1024)),
        ("SERVING_KEEPALIVE_S", "-1"),
        ("SERVING_REQUEST_TIMEOUT_S", "soon"),
        ("SERVING_PUBLIC_PAGES", "yes"),
        ("SERVING_CACHE_SALT", "maybe"),
        ("SERVING_ACCOUNT_WEIGHTS", "acme"),
        ("SERVING_ACCOUNT_WEIGHTS", "acme=0"),
        ("SERVING_ACCOUNT_WEIGHTS", "acme=nan"),
        ("SERVING_ACCOUNT_WEIGHTS", "=1"),
    ],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("SERVING_").lower()):
        Settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_API_KEYS", "sk-hidden:acme")
    monkeypatch.setenv("SERVING_CLUSTER_TOKEN", "hidden-too")
    monkeypatch.setenv("SERVING_METRICS_TOKEN", "hidden-three")
    settings = Settings()
    assert "hidden" not in repr(settings) + str(settings.model_dump())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().keepalive_s = 1.0  # type: ignore[misc]


LOOPBACK = ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"]
BEYOND = ["0.0.0.0", "::", "", "10.0.0.1", "fd00::2", "::ffff:10.0.0.1", "vm", "127.0.0.1.nip.io"]


@pytest.mark.parametrize(("hosts", "loopback"), [(LOOPBACK, True), (BEYOND, False)])
def test_what_is_loopback(hosts: list[str], loopback: bool) -> None:
    assert [is_loopback(host) for host in hosts] == [loopback] * len(hosts)


@pytest.mark.parametrize("keys", [LOCAL_KEY, f"sk-a, {LOCAL_KEY}:acme"])
@pytest.mark.parametrize("host", BEYOND)
def test_the_key_that_everybody_knows_is_refused(host: str, keys: str) -> None:
    with pytest.raises(ValueError, match="SERVING_API_KEYS"):
        Settings(host=host, api_keys=SecretStr(keys)).check_key()


@pytest.mark.parametrize(
    ("host", "keys"),
    [*((host, LOCAL_KEY) for host in LOOPBACK), ("0.0.0.0", "sk-local-2"), ("0.0.0.0", "")],
)
def test_other_keys_and_loopback_are_taken(host: str, keys: str) -> None:
    Settings(host=host, api_keys=SecretStr(keys)).check_key()


@pytest.mark.parametrize(
    ("host", "pages", "are_open"),
    [
        ("127.0.0.1", "auto", True),
        ("0.0.0.0", "auto", False),
        ("0.0.0.0", "open", True),
        ("127.0.0.1", "closed", False),
    ],
)
def test_pages_are_open_on_loopback(host: str, pages: Any, are_open: bool) -> None:
    assert Settings(host=host, public_pages=pages).pages_are_open is are_open


def test_weights() -> None:
    assert Settings(account_weights="acme=4, a=b=0.5").weights == {"acme": 4.0, "a=b": 0.5}
