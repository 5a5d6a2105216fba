"""What a large body of Create Completion must look like before pydantic reads it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from serving.api.strict import place_in, refusal_of
from serving.api.structure import MAX_TEXT
from serving.errors import ContextLengthExceeded, InvalidField

# Images, or stop sequences. No model takes as many images; each has its own limit, which is checked
# where they are loaded.
MAX_ITEMS = 1024
# Bytes of JSON, of a field that is neither a prompt nor an image.
MAX_FIELD = 64 * 1024

# No value is made of these.
_NULL = msgspec.Raw(b"null")
_FEW = msgspec.Meta(max_length=MAX_ITEMS)


class _ParameterShape(msgspec.Struct, forbid_unknown_fields=True):
    """The names that `ModelParameters` takes."""

    temperature: msgspec.Raw = _NULL
    max_tokens: msgspec.Raw = _NULL
    stop_sequences: Annotated[list[msgspec.Raw], _FEW] | None = None
    top_p: msgspec.Raw = _NULL
    topP: msgspec.Raw = _NULL
    top_k: msgspec.Raw = _NULL
    topK: msgspec.Raw = _NULL
    frequency_penalty: msgspec.Raw = _NULL
    presence_penalty: msgspec.Raw = _NULL
    reasoning_effort: msgspec.Raw = _NULL


class _ImageShape(msgspec.Struct, forbid_unknown_fields=True):
    """The names that `Image` takes."""

    image_url: msgspec.Raw = _NULL
    detail: msgspec.Raw = _NULL


class _Shape(msgspec.Struct, forbid_unknown_fields=True):
    """The names that `CompletionRequest` takes, and where there may be lists and objects: nothing
    that is `Raw` here may be one."""

    model: msgspec.Raw = _NULL
    prompt: msgspec.Raw = _NULL
    account_id: msgspec.Raw = _NULL
    images: Annotated[list[_ImageShape], _FEW] | None = None
    model_parameters: _ParameterShape | None = None
    stream: msgspec.Raw = _NULL


_decode_shape = msgspec.json.Decoder(_Shape).decode


def refuse_other_shapes(body: bytes) -> None:
    """Refuse a large body at the first field that does not exist, at the first list or object where
    there can be none, and at a field of megabytes that is no image.

    pydantic reads the whole body first and makes an error of every such field: a million of them
    take seconds of the router's event loop. What else is wrong is pydantic's to say.

    Raises:
        InvalidField: there is one, or a list is too long.
        ContextLengthExceeded: the prompt has megabytes.
    """
    try:
        _check_shape(_decode_shape(body))
    except msgspec.ValidationError as error:
        said, path = place_in(str(error))
        if said.startswith("Object contains unknown field"):
            raise refusal_of(str(error)) from None
        if "length" in said:
            raise InvalidField(f"'{path}': has more than {MAX_ITEMS} items", param=path) from None
        if path and said.endswith(("got `array`", "got `object`")):
            raise _misplaced(path) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return


def _check_shape(shape: msgspec.Struct, path: str = "") -> None:
    for name in shape.__struct_fields__:
        value, where = getattr(shape, name), f"{path}{name}"
        if isinstance(value, msgspec.Raw):
            _check_raw(name, where, memoryview(value))
        elif isinstance(value, msgspec.Struct):
            _check_shape(value, f"{where}.")
        elif isinstance(value, list):
            for at, item in enumerate(value):
                if isinstance(item, msgspec.Struct):
                    _check_shape(item, f"{where}.{at}.")
                else:
                    _check_raw(name, f"{where}.{at}", memoryview(item))


def _check_raw(name: str, where: str, json: memoryview) -> None:
    if json[:1].tobytes() in b"[{":
        raise _misplaced(where)
    if name == "image_url":
        if not json.tobytes().isascii():
            raise InvalidField(f"'{where}': a URL has only ASCII characters", param=where)
        return
    size = len(json)
    if name == "prompt" and size > MAX_TEXT:
        raise ContextLengthExceeded(
            f"'{where}': has {size} bytes of JSON; at most {MAX_TEXT} are taken", param=where
        )
    if name != "prompt" and size > MAX_FIELD:
        raise InvalidField(
            f"'{where}': has {size} bytes of JSON; at most {MAX_FIELD} are taken", param=where
        )


def _misplaced(path: str) -> InvalidField:
    return InvalidField(f"'{path}': cannot be a list or an object", param=path)
