"""The text of an API key that is made here.

    svk_<ID: 12>_<secret: 43><checksum: 6>        letters and digits

As GitHub's tokens (github.blog, "Behind GitHub's new authentication token formats", 2021): a prefix
that nothing else has and a CRC-32 of all before it, so that a scanner for secrets finds a
key in a text, and knows it from what only looks like one, without asking anybody. `PATTERN` is what
such a scanner is given. The ID is no secret: logs and lists show it, and whoever finds a key can
say which one it is. The secret has 256 random bits.

Stored is SHA-256 of the whole text. A slow hash makes guessing of passwords expensive, which people
choose; nobody guesses 256 random bits, and each request would pay for it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "svk_"
ID_CHARS, SECRET_CHARS, CHECKSUM_CHARS = 12, 43, 6
PATTERN = rf"\b{PREFIX}[0-9A-Za-z]{{{ID_CHARS}}}_[0-9A-Za-z]{{{SECRET_CHARS + CHECKSUM_CHARS}}}\b"
_WHOLE = re.compile(PATTERN.removeprefix(r"\b").removesuffix(r"\b"))
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_BYTES = 32


def new_id() -> str:
    """The public ID of a new key, its prefix included."""
    return PREFIX + "".join(secrets.choice(_DIGITS) for _ in range(ID_CHARS))


def new_secret(key_id: str) -> str:
    """The text of a key, which is shown once; another one each time."""
    number = int.from_bytes(secrets.token_bytes(SECRET_BYTES))
    text = f"{key_id}_{_base62(number, SECRET_CHARS)}"
    return text + _checksum(text)


def digest_of(key: bytes) -> bytes:
    """What is stored and compared of a key, ours or an operator's own: SHA-256."""
    return hashlib.sha256(key).digest()


def id_of(key: str) -> str | None:
    """The public ID in a key's text; None if it is no whole key of ours."""
    return key[: len(PREFIX) + ID_CHARS] if is_whole(key) else None


def is_whole(key: str) -> bool:
    """True for a text that is one of our keys, whether or not it is known: nothing of it is missing
    and no character is wrong."""
    return bool(_WHOLE.fullmatch(key)) and key[-CHECKSUM_CHARS:] == _checksum(key[:-CHECKSUM_CHARS])


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode("ascii")), CHECKSUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
