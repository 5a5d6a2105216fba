"""Addresses of the store."""

from __future__ import annotations

import pytest

from serving.store.url import shown, store_url


@pytest.mark.parametrize(
    ("text", "driver", "database"),
    [
        ("sqlite:////var/lib/s.db", "sqlite+aiosqlite", "/var/lib/s.db"),
        ("sqlite+aiosqlite:////var/lib/s.db", "sqlite+aiosqlite", "/var/lib/s.db"),
        ("postgresql://u:p@db:5433/serving", "postgresql+asyncpg", "serving"),
        ("postgres://u:p@db/serving", "postgresql+asyncpg", "serving"),
    ],
)
def test_the_driver_is_chosen(text: str, driver: str, database: str) -> None:
    url = store_url(text)
    assert (url.drivername, url.database) == (driver, database)


def test_a_relative_file_stays_where_it_is_when_the_process_moves() -> None:
    assert str(store_url("sqlite:///here.db").database).endswith("/here.db")
    assert str(store_url("sqlite:///here.db").database).startswith("/")


def test_libpqs_sslmode_is_asyncpgs_ssl() -> None:
    assert store_url("postgresql://db/s?sslmode=verify-full").query == {"ssl": "verify-full"}


def test_it_is_shown_without_its_password() -> None:
    assert shown(store_url("postgresql://u:secret@db/s")) == "postgresql://u:***@db/s"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "",
        "mysql://u:secret@db/s",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x",
    ],
)
def test_what_cannot_be_the_store_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SERVING_STORE_URL") as caught:
        store_url(text)
    assert "secret" not in str(caught.value)
