"""How a model's application is called in Ray Serve, wherever it is deployed from."""

from __future__ import annotations

import hashlib
import re

ENGINE_APPS = "model-"


def engine_app_name(model_id: str) -> str:
    """The Serve application's name for a model; names take no slashes or hashes."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", model_id)
    if plain != model_id:
        plain += "-" + hashlib.sha256(model_id.encode()).hexdigest()[:8]
    return ENGINE_APPS + plain
