from __future__ import annotations

import httpx
import pytest

from serving.api.multipart import MOST_PARTS, FormReader, Part, parts_of
from serving.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=b"
FIELD = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n'
END = b"--b--\r\n"


def contents(content_type: str, body: bytes) -> list[tuple[str, bool, bytes]]:
    """What is read, however the body comes."""
    found = parts_of(content_type, body)
    for size in (1, 2, 3, 7, 64):
        assert in_pieces(content_type, body, size) == found
    return [(part.name, part.is_file, body[part.start : part.end]) for part in found]


def in_pieces(content_type: str, body: bytes, size: int) -> list[Part]:
    reader = FormReader(content_type)
    found = [part for at in range(0, len(body), size) for part in reader.feed(body[at : at + size])]
    reader.close()
    return found


def test_what_a_client_sends() -> None:
    sound = b"RIFF\r\n--\r\n\r\n--b" + bytes(range(256))
    sent = httpx.Request(
        "POST", "http://x", data={"model": "a/b", "prompt": ""}, files={"file": ("ä.wav", sound)}
    )
    found = contents(sent.headers["content-type"], sent.read())
    assert found == [("model", False, b"a/b"), ("prompt", False, b""), ("file", True, sound)]


@pytest.mark.parametrize(
    ("head", "name", "is_file"),
    [
        (b'Content-Disposition: form-data; name="a"; filename="b; name=c"', "a", True),
        (b"content-disposition:form-data;name=a", "a", False),
        (b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="a"', "a", False),
        (b"Content-Disposition: form-data; name=\"a\"; filename*=UTF-8''b.wav", "a", True),
    ],
)
def test_headers_of_a_part(head: bytes, name: str, is_file: bool) -> None:
    assert contents(TYPE, b"--b\r\n" + head + b"\r\n\r\nx\r\n--b--") == [(name, is_file, b"x")]


@pytest.mark.parametrize("content_type", [TYPE, 'Multipart/Form-Data;  boundary="b"; x=y'])
def test_content_types(content_type: str) -> None:
    assert contents(content_type, FIELD + END) == [("model", False, b"x")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("", FIELD + END),
        ("multipart/form-data", FIELD + END),
        ("multipart/form-data; boundary=", FIELD + END),
        ("multipart/form-data; boundary=" + "b" * 71, b"--" + b"b" * 71 + b"--"),
        ("multipart/form-data; boundary=\u00e9", FIELD + END),
        ("multipart/mixed; boundary=b", FIELD + END),
        (TYPE, b""),
        (TYPE, b"\r\n" + FIELD + END),
        (TYPE, b"preamble\r\n" + FIELD + END),
        (TYPE, FIELD),
        (TYPE, FIELD[:-2]),
        (TYPE, FIELD + b"--b \r\n"),
        (TYPE, FIELD + b"--b"),
        (TYPE, FIELD.replace(b"\r\n", b"\n") + END),
        (TYPE, b"--b\r\n\r\nx\r\n--b--"),
        (TYPE, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--"),
        (TYPE, b'--b\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n--b--'),
        (TYPE, b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--'),
        (TYPE, b"--b\r\nx: " + b"x" * 9000 + FIELD[3:] + END),
        (TYPE, FIELD * (MOST_PARTS + 1) + END),
    ],
)
def test_what_is_no_form(content_type: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parts_of(content_type, body)
    for size in (1, 7):
        with pytest.raises(InvalidRequest):
            in_pieces(content_type, body, size)


def test_what_could_be_read_in_two_ways_has_one_reading() -> None:
    """The mark of an end counts after a line's end alone, and headers end where content begins."""
    body = FIELD.replace(b"\r\n\r\nx", b"\r\n\r\n--b--") + END
    assert contents(TYPE, body) == [("model", False, b"--b--")]
    assert contents(TYPE, FIELD * MOST_PARTS + END)[-1] == ("model", False, b"x")


def test_what_is_asked_for_is_kept_and_nothing_else() -> None:
    long, file = FIELD.replace(b"x", b"y" * 9), FIELD.replace(b"model", b"file")
    for size in (1, 5, 1000):
        body = FIELD + long + file.replace(b"x", bytes(5000)) + END
        reader = FormReader(TYPE, keep={"model"}, most=8)
        found = []
        for at in range(0, len(body), size):
            found += reader.feed(body[at : at + size])
            assert len(reader._kept) < 200, "a line's worth"
        reader.close()
        assert [part.content for part in found] == [b"x", None, None]
