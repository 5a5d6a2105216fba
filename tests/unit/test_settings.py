from __future__ import annotations

import pytest
from pydantic import ValidationError

from serving.settings import Settings


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
    ],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.removeprefix("SERVING_").lower()):
        Settings()


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_API_KEYS", "sk-hidden:acme")
    monkeypatch.setenv("SERVING_CLUSTER_TOKEN", "hidden-too")
    settings = Settings()
    assert "hidden" not in repr(settings) + str(settings.model_dump())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().keepalive_s = 1.0  # type: ignore[misc]
