"""The sizes of what constrains an answer: schemas, patterns, choices, tags, grammars.

Turning them into a grammar costs time and memory that grow with these sizes, often faster, and a
request pays for it in no other currency. The names are those of JSON Schema
(json-schema.org/draft/2020-12) and of vLLM's structured outputs; they are looked for in every
object of a field, because structural tags nest schemas, patterns and grammars in each other.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec

from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.patterns import pattern_size
from serving.engine.bodies.values import check_values
from serving.errors import InvalidRequest

# The fields of a body that hold them.
FIELDS = ("response_format", "structured_outputs", "tools", "text", "output_config")

_LENGTHS = frozenset(
    (
        *("maxLength", "minLength", "maxItems", "minItems"),
        *("maxProperties", "minProperties", "maxContains", "minContains"),
    )
)
_PATTERNS = frozenset(("pattern", "regex", "whitespace_pattern"))
_PROPERTIES = frozenset(("properties", "patternProperties", "$defs", "definitions"))
_CHOICES = frozenset(("enum", "choice"))
_TAGS = frozenset(("tags", "structures", "triggers"))
# Documents that may be sent as JSON in a string.
_DOCUMENTS = frozenset(("json", "structural_tag"))
# Where a document begins that "#" stands for.
_ROOTS = frozenset(("json", "json_schema", "parameters", "schema", "input_schema"))
# Where a schema says, without anything of the answer in between, that another one holds too.
_AT_ONCE = ("allOf", "anyOf", "oneOf")
_REPEATED = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


class Schemas:
    """Adds up the sizes of one request's schemas."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._field = ""
        self._totals = dict.fromkeys(("properties", "choices", "chars", "size"), 0)
        # Kept, because what is known of a schema is known by its identity.
        self._documents: list[Any] = []
        # Schemas that do not refer to themselves.
        self._sound: set[int] = set()

    def check(self, field: str, value: Any) -> None:
        """Check one of `FIELDS`; `check_values` has taken it.

        Raises:
            InvalidRequest: it is larger than a limit, or a schema refers to nothing but itself.
        """
        self._field = field
        # Each value with the document that its references are about.
        todo = [(value, value)]
        while todo:
            item, root = todo.pop()
            if type(item) is list:
                todo += [(inside, root) for inside in item]
            elif type(item) is dict:
                for key, given in item.items():
                    inside = self._one(key, given)
                    todo.append((inside, inside if key in _ROOTS else root))
                if "$ref" in item:
                    self._check_reference(item, root)

    def _one(self, key: str, value: Any) -> Any:
        """Check what stands under one key; returns what to look into."""
        limits = self._limits
        if type(value) is str:
            if key == "const":
                self._chars(value)
            elif key in _PATTERNS:
                self._pattern(value)
            elif key == "grammar":
                self._grammar(value)
            elif key in _DOCUMENTS:
                return self._document(value)
        elif type(value) is list:
            if key in _CHOICES:
                self._add("choices", len(value), limits.enum_values, "enum values and choices")
                self._chars(*value)
            elif key in _TAGS and len(value) > limits.tags:
                self._refuse(f"has {len(value)} {key}; at most {limits.tags} are taken")
        elif type(value) is dict:
            if key in _PROPERTIES:
                most = limits.schema_properties
                self._add("properties", len(value), most, "properties and definitions")
                self._chars(*value)
                if key == "patternProperties":
                    for pattern in value:
                        self._pattern(pattern)
        elif key in _LENGTHS and type(value) in (int, float) and value > limits.lengths:
            self._refuse(f"has a {key} of {value}; at most {limits.lengths} is taken")
        return value

    def _chars(self, *values: Any) -> None:
        """What an answer may have to say word for word."""
        chars = sum(len(value) for value in values if type(value) is str)
        words = "characters in names, enum values and choices"
        self._add("chars", chars, self._limits.schema_chars, words)

    def _pattern(self, pattern: str) -> None:
        limits = self._limits
        if len(pattern) > limits.pattern_chars:
            self._refuse(
                f"has a regular expression of {len(pattern)} characters; at most "
                f"{limits.pattern_chars} are taken"
            )
        what = "characters in regular expressions, their repetitions written out"
        self._add("size", pattern_size(pattern), limits.pattern_size, what)

    def _grammar(self, grammar: str) -> None:
        limits = self._limits
        if len(grammar) > limits.grammar_chars:
            self._refuse(
                f"has a grammar of {len(grammar)} characters; at most {limits.grammar_chars} are "
                "taken"
            )
        times = [int(number[:9] or 0) for pair in _REPEATED.findall(grammar) for number in pair]
        self._add("size", sum(times), limits.pattern_size, "repetitions in grammars")

    def _document(self, text: str) -> Any:
        """What a document says that was sent as JSON in a string. If it is none, vLLM says so."""
        try:
            value = msgspec.json.decode(text)
        except RecursionError:
            self._refuse("is nested too deeply")
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError):
            return None
        check_values(self._field, value, self._limits.values, self._limits)
        self._documents.append(value)
        return value

    def _check_reference(self, schema: dict[str, Any], root: Any) -> None:
        """A schema that refers to itself before any value of the answer has no answer."""
        path: set[int] = set()
        todo: list[tuple[Any, bool]] = [(schema, True)]
        while todo:
            item, entering = todo.pop()
            one = id(item)
            if not entering:
                path.discard(one)
                self._sound.add(one)
            elif one in path:
                self._refuse("has a schema that refers to itself before any value")
            elif type(item) is dict and one not in self._sound:
                path.add(one)
                todo.append((item, False))
                todo += [(other, True) for other in _at_once(item, root)]

    def _add(self, what: str, more: int, most: int, words: str) -> None:
        self._totals[what] += more
        if self._totals[what] > most:
            self._refuse(f"has more than {most} {words}; at most {most} are taken")

    def _refuse(self, message: str) -> NoReturn:
        raise InvalidRequest(f"'{self._field}': {message}", param=self._field)


def _at_once(schema: dict[str, Any], root: Any) -> list[Any]:
    """The schemas that hold together with this one for the same value."""
    found = [one for key in _AT_ONCE if type(schema.get(key)) is list for one in schema[key]]
    if type(reference := schema.get("$ref")) is str:
        found.append(_find(reference, root))
    return found


def _find(reference: str, root: Any) -> Any:
    """What a reference within the same document is about (RFC 6901), if anything."""
    start, *steps = reference.split("/")
    found = root if start == "#" else None
    for step in steps:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if type(found) is dict:
            found = found.get(name)
        elif type(found) is list and name.isdecimal() and int(name[:9]) < len(found):
            found = found[int(name[:9])]
        else:
            return None
    return found
