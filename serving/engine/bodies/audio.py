"""The check of a form with a recording before vLLM's app sees it.

A field that `AudioRequest` does not have is refused by name. Among them are those of vLLM's that
make others wait or fail (beams, `vllm_xargs`), and those of OpenAI's that vLLM leaves out without
a word.
"""

from __future__ import annotations

from pydantic import ValidationError

from serving.api.audio import AudioRequest
from serving.api.multipart import parts_of
from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.values import shown
from serving.errors import InvalidRequest


def check_audio(content_type: str, body: bytes, limits: BodyLimits) -> None:
    """
    Raises:
        InvalidRequest: which field vLLM's app is not to see, and why.
    """
    given: dict[str, str | bytes] = {}
    for name, is_file, start, end, _ in parts_of(content_type, body):
        size = end - start
        if name in given:
            _refuse(name, "is there more than once")
        if is_file != (name == "file"):
            _refuse(name, "must be no file" if is_file else "must be a file, with a file's name")
        if is_file:
            if not 0 < size <= limits.audio_bytes:
                _refuse(name, f"has {size} bytes; 1 to {limits.audio_bytes} are taken")
            given[name] = b""
            continue
        if size > limits.string_chars:
            _refuse(name, f"has {size} bytes; at most {limits.string_chars} are taken")
        try:
            given[name] = body[start:end].decode()
        except UnicodeDecodeError:
            _refuse(name, "is not UTF-8")
    try:
        AudioRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        unknown = first["type"] == "extra_forbidden"
        _refuse(str(first["loc"][0]), "is not taken here" if unknown else first["msg"])


def _refuse(name: str, message: str) -> None:
    raise InvalidRequest(f"'{shown(name)}': {message}", param=shown(name))
