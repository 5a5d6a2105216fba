"""Images and `data:` URLs for tests."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

RED, BLUE = (200, 30, 30), (20, 60, 220)


def encoded(
    color: Any = RED,
    size: tuple[int, int] = (8, 6),
    kind: str = "PNG",
    mode: str = "RGB",
    **how: Any,
) -> bytes:
    """The file of an image of one color."""
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, kind, **how)
    return out.getvalue()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
