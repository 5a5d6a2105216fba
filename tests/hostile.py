"""Request bodies over every field of an engine's own request models, and hostile values in them.

The strategies follow the models' types: a new field of an upgrade is covered without a line here.
"""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import typing_extensions
from hypothesis import strategies as st
from pydantic import BaseModel

Strategy = st.SearchStrategy[Any]

# Fields of a body that vLLM takes and cannot send to its core: each is to be refused with 400. They
# are bytes, since half of a surrogate pair is not UTF-8.
REFUSED = {
    "a pattern size of 71 bits": (
        b'"repetition_detection": {"max_pattern_size": %d, "min_count": 2}' % 2**70
    ),
    "half of a pair in session_id": b'"session_id": "a\xed\xa0\x80"',
    "half of a pair in vllm_xargs": b'"vllm_xargs": {"a": "\xed\xa0\x80"}',
    "half of a pair in a name of vllm_xargs": b'"vllm_xargs": {"\xed\xa0\x80": "a"}',
}

_DEEPEST = 4
_NESTED: Any = 1
for _ in range(200):
    _NESTED = [_NESTED]

SCHEMAS: tuple[Any, ...] = (
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"enum": ["a", "b"]},
    {"enum": []},
    {"enum": [f"v{number}" for number in range(5000)]},
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#"}, {"type": "string"}]},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"$ref": "https://example.com/schema"},
    {"$ref": "#/nowhere"},
    {"$ref": 5},
    {"not": {}},
    {"type": "string", "pattern": "[a-z]{1,5000}"},
    {"type": "string", "pattern": "("},
    {"type": "string", "minLength": 5, "maxLength": 2},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2**62},
    {"type": ["string", 5]},
    {"type": "nonsense"},
    {"properties": []},
    {"type": "object", "additionalProperties": False, "required": ["a"]},
    {"allOf": [False]},
    {},
)
CONSTRAINTS: tuple[Any, ...] = (
    *({"json": schema} for schema in SCHEMAS),
    *({"json": json.dumps(schema)} for schema in SCHEMAS[:12]),
    {"regex": "[ab]{1,3}"},
    {"regex": "("},
    {"regex": "(a{1,100}){1,100}"},
    {"regex": "\x00"},
    {"regex": "a" * 5000},
    {"regex": "[^\\x00-\\U0010ffff]"},
    {"regex": "(?!a)a"},
    {"choice": ["yes", "no"]},
    {"choice": [""]},
    {"choice": ["x" * 300]},
    {"grammar": 'root ::= "a" | "b"'},
    {"grammar": "root ::= root"},
    {"grammar": "root ::= "},
    {"grammar": "start: /a{1,9999}/"},
    {"grammar": 'root ::= "a"{1,9999}'},
    {"json_object": True},
    {"json_object": False},
    {"structural_tag": "{}"},
    {"structural_tag": json.dumps({"type": "structural_tag", "format": _NESTED})},
    {"structural_tag": {}},
    {"regex": "a", "choice": ["a"]},
)
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 5, 30, 3000, -(2**31), 2**31, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**70, int("9" * 400)),
    *(0.5, -0.0, 1.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "a", "\x00", "\ud800", "\udfff\ud800", "\U0001f600", "x" * 20_000, "5", "true"),
    *("{}", "null", "../../etc/passwd", "{{ 1/0 }}", "\\", "%s%n"),
    *([], [[]], [None], [1], [True], ["a"], [2**70], ["\ud800"], [[1], ["a"]], [{}], [-1]),
    *({}, {"": ""}, {"a": None}, {"\ud800": 1}, {"a": {"b": [2**70]}}, {"5": 1e308}, {"-1": 1}),
    *({"type": "function"}, {"type": []}, {"function": 5}, {"role": "user"}, {"role": []}),
    *({"text": 5}, {"type": "text"}, {"url": {}}, {str(2**70): 1}, {"9" * 5000: 1}),
    _NESTED,
    list(range(5000)),
    ["a"] * 2000,
    [{"role": "user", "content": "a"}] * 2000,
    {str(number): number for number in range(2000)},
)
# What stands for a field that has no business in a short test if it is valid.
_SMALL = {"max_tokens": 3, "max_new_tokens": 3, "max_completion_tokens": 3, "n": 4}

_texts = st.one_of(
    st.sampled_from(["a", "Once upon a time", "", "\n", "}", "role", "user"]),
    st.text(max_size=12),
)
_words = st.text(min_size=1, max_size=8)


def plausible(annotation: Any, depth: int = 0) -> Strategy:
    """Values of a type, most of which its model takes."""
    if annotation in (Any, object, msgspec.Raw):
        return st.one_of(_texts, st.integers(-2, 99), st.sampled_from(SCHEMAS))
    if annotation is None or annotation is type(None):
        return st.none()
    if isinstance(annotation, typing_extensions.TypeAliasType):
        return plausible(annotation.__value__, depth)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired) or origin in (
        typing_extensions.Required,
        typing_extensions.NotRequired,
    ):
        return plausible(arguments[0], depth)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([plausible(one, depth) for one in arguments])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    kind = origin or annotation
    if not isinstance(kind, type):
        return st.sampled_from(HOSTILE)
    if typing_extensions.is_typeddict(kind) or typing.is_typeddict(kind):
        return _typed_dict(kind, depth)
    if issubclass(kind, msgspec.Struct):
        found = {at.name: (at.type, at.required) for at in msgspec.structs.fields(kind)}
        return _some(found, depth)
    if issubclass(kind, BaseModel):
        fields = {
            field.alias or name: (field.annotation, field.is_required())
            for name, field in kind.model_fields.items()
        }
        return _some(fields, depth)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.init]
        return _some({name: (hints[name], False) for name in names}, depth)
    if issubclass(kind, bool):
        return st.booleans()
    if issubclass(kind, int):
        return st.integers(-1, 40)
    if issubclass(kind, float):
        return st.floats(-1, 2)
    if issubclass(kind, (str, bytes)):
        return _texts
    if issubclass(kind, collections.abc.Mapping):
        value = arguments[1] if arguments else Any
        keys = st.one_of(_words, st.integers(0, 2000).map(str))
        return st.dictionaries(keys, plausible(value, depth + 1), max_size=3)
    inner = plausible(arguments[0] if arguments else Any, depth + 1)
    return st.lists(inner, max_size=3)


def _typed_dict(kind: Any, depth: int) -> Strategy:
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    return _some(
        {name: (hint, name in kind.__required_keys__) for name, hint in hints.items()}, depth
    )


def _some(fields: Mapping[str, tuple[Any, bool]], depth: int) -> Strategy:
    """An object with its required fields and a few of the others."""
    if depth > _DEEPEST:
        return st.just({})
    required = {
        name: st.deferred(lambda hint=hint: plausible(hint, depth + 1))
        for name, (hint, needed) in fields.items()
        if needed
    }
    optional = {
        name: st.deferred(lambda hint=hint: plausible(hint, depth + 1))
        for name, (hint, needed) in fields.items()
        if not needed
    }
    return st.fixed_dictionaries(required, optional=optional)


@st.composite
def bodies(
    draw: st.DrawFn,
    models: Sequence[type[BaseModel] | type[msgspec.Struct]],
    base: Mapping[str, Any],
) -> bytes:
    """A body: `base`, a few fields with values of their types, one or two with hostile ones."""
    model = draw(st.sampled_from(models))
    if issubclass(model, msgspec.Struct):
        names = {field.name: field.type for field in msgspec.structs.fields(model)}
    else:
        fields = model.model_fields
        names = {field.alias or name: field.annotation for name, field in fields.items()}
    body = copy.deepcopy(dict(base))
    for name in draw(st.lists(st.sampled_from(sorted(names)), max_size=4, unique=True)):
        body[name] = draw(plausible(names[name]))
    for name in draw(st.lists(st.sampled_from(sorted(names)), max_size=2, unique=True)):
        body[name] = draw(st.sampled_from(HOSTILE))
    if "structured_outputs" in names and draw(st.integers(0, 4)) == 0:
        body |= draw(_constraints())
    body = copy.deepcopy(body)  # the values are shared with other bodies
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        _replace_something(draw, body)
    if "model" in base:
        body["model"] = base["model"]
    for name, most in _SMALL.items():
        if isinstance(body.get(name), int) and most < body[name] < 2049:
            body[name] = most
    if "max_tokens" in names and body.get("max_tokens") is None:
        body["max_tokens"] = 3
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def _replace_something(draw: st.DrawFn, value: Any) -> None:
    """Put a hostile value somewhere inside."""
    while True:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inside = value[key]
        if not isinstance(inside, (dict, list)) or draw(st.integers(0, 3)) == 0:
            value[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            return
        value = inside


def _constraints() -> Strategy:
    schema = st.sampled_from(SCHEMAS)
    return st.one_of(
        st.sampled_from(CONSTRAINTS).map(lambda value: {"structured_outputs": value}),
        schema.map(
            lambda value: {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": value},
                }
            }
        ),
        schema.map(
            lambda value: {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": value}}],
                "tool_choice": "required",
            }
        ),
        st.sampled_from(
            [
                {"response_format": {"type": "structural_tag", "format": value}}
                for value in ({}, [], {"type": "regex", "pattern": "a{9999}"}, {"type": "any_text"})
            ]
        ),
    )
