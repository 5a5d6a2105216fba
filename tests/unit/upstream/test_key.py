from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.catalogue.providers import Provider
from serving.errors import ModelUnavailable
from serving.upstream.key import ProviderKey


def key(**fields: str) -> ProviderKey:
    return ProviderKey("acme", Provider(base_url="https://acme.test/v1", **fields))


def test_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", " sk-1\n")
    found = key(api_key_env="ACME_KEY").read()
    assert found.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(found) + str(found)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-1\n")
    reader = key(api_key_file=str(file), api_key_env="IGNORED")
    assert reader.read().get_secret_value() == "sk-1"
    file.write_text("sk-longer")
    assert reader.read().get_secret_value() == "sk-longer"
    file.unlink()
    with pytest.raises(ModelUnavailable):
        reader.read()
    file.write_text("sk-3")
    assert reader.read().get_secret_value() == "sk-3"


def test_a_mounted_secret_is_swapped_by_a_link(tmp_path: Path) -> None:
    """As Kubernetes does it; both files may have the same time and size."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"sk-{name}")
        os.utime(tmp_path / name, ns=(1, 1))
    link = tmp_path / "key"
    link.symlink_to("a")
    reader = key(api_key_file=str(link))
    assert reader.read().get_secret_value() == "sk-a"
    (tmp_path / "new").symlink_to("b")
    (tmp_path / "new").replace(link)
    assert reader.read().get_secret_value() == "sk-b"


@pytest.mark.parametrize("value", ["", "  ", "sk-\u00e9", "sk-1\nsk-2"])
def test_what_is_no_key(tmp_path: Path, value: str) -> None:
    file = tmp_path / "key"
    file.write_text(value)
    with pytest.raises(ModelUnavailable) as caught:
        key(api_key_file=str(file)).read()
    assert str(file) in caught.value.message
    assert "sk-" not in caught.value.message


def test_the_message_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_KEY", raising=False)
    with pytest.raises(ModelUnavailable, match="ACME_KEY"):
        key(api_key_env="ACME_KEY").read()
    with pytest.raises(ModelUnavailable, match="api_key_env"):
        key().read()
