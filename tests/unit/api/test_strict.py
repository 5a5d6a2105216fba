"""Bodies that are refused at the first thing that is wrong with them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from serving.api.strict import null, raw_object, read_strictly
from serving.errors import InvalidField, InvalidRequest


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[int, msgspec.Meta(ge=1)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    items: list[Inner] = []
    raw: msgspec.Raw = msgspec.field(default_factory=null)


DECODER = msgspec.json.Decoder(Body)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{}", "name", "'name' is required"),
        (b'{"name": 1}', "name", "'name': expected str, got int"),
        (b'{"name": "a", "nam": 1}', "nam", "unknown field 'nam'"),
        (b'{"name": "a", "items": [{"count": 1}, {}]}', "items.1.count", "is required"),
        (b'{"name": "a", "items": [{"count": 0}]}', "items.0.count", "expected int >= 1"),
        (b'{"name": "a", "items": [{"count": 1, "a`b": 1}]}', "items.0.a`b", "unknown field"),
        (b'{"name": "a", "' + b"x" * 5000 + b'": 1}', None, "unknown field 'xxx"),
    ],
)
def test_a_field_is_named(body: bytes, param: str | None, message: str) -> None:
    with pytest.raises(InvalidField) as refused:
        read_strictly(DECODER, body)
    assert message in refused.value.message
    assert len(refused.value.message) < 300
    if param is not None:
        assert refused.value.param == param


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"null", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"{'name': 1}",
     b'{"name": "a"} x', b'{"name": "a", "raw": ' + b"[" * 99_999],
)  # fmt: skip
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_strictly(DECODER, body)


def test_an_object_that_goes_on_as_it_is() -> None:
    deep: Any = b'{"a": ' * 500 + b"1" + b"}" * 500
    assert raw_object("x", msgspec.Raw(deep)) == msgspec.Raw(deep)
    assert raw_object("x", null()) is None
    with pytest.raises(InvalidField, match="'x': must be an object"):
        raw_object("x", msgspec.Raw(b"[]"))
