"""The API's description as one page of HTML, without scripts or anything from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

from serving.api.multipart import MEDIA_TYPE as FORM
from serving.api.openapi.schemas import REF

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: 14px/1.45 ui-monospace, monospace }
pre { background: #8881; padding: .75rem; overflow-x: auto }
details { border-top: 1px solid #8884; padding: .4rem 0 }
summary { cursor: pointer }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0 }
:root { color-scheme: light dark }
"""
# Nesting of a type in words; what is deeper is an object.
_DEPTH = 2


def page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    schemas = document["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = "".join(_operation(method.upper(), path, operation, schemas))
            groups.setdefault(operation["tags"][0], []).append(shown)
    parts = [f"<h2>{escape(tag)}</h2>{''.join(shown)}" for tag, shown in groups.items()]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(info['title'])} {escape(info['version'])}</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{_words(info['description'])}</p>"
        "<p>A key goes into <code>authorization: Bearer</code>, <code>x-api-key</code> or "
        '<code>api-key</code>. For machines: <a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(parts)}</html>"
    )


def _operation(
    method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> Iterator[str]:
    yield f"<details><summary><code>{method} {escape(path)}</code> {_words(operation['summary'])}"
    yield "</summary>"
    if "description" in operation:
        yield f"<p>{_words(operation['description'])}</p>"
    rows = [(one["name"], one["schema"], one["required"]) for one in _parameters(operation)]
    yield _table("Parameters", rows, schemas)
    if body := operation.get("requestBody"):
        ((media, content),) = body["content"].items()
        for schema in _alternatives(content["schema"], schemas):
            required = schema.get("required", ())
            fields = schema.get("properties", {}).items()
            rows = [(name, of, name in required) for name, of in fields]
            yield _table(schema.get("title", "Body"), rows, schemas)
        for name, example in content.get("examples", {}).items():
            yield f"<p>{_words(name)}</p><pre>{escape(_curl(path, media, example['value']))}</pre>"
    answers = operation["responses"].items()
    told = "".join(
        f"<tr><td>{status}<td>{_words(answer['description'])}" for status, answer in answers
    )
    yield f"<table><tr><th>Status<th>When{told}</table></details>"


def _parameters(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for parameter in operation.get("parameters", ()):
        yield {"required": False, **parameter}


def _alternatives(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects that a body may be."""
    if "$ref" in schema:
        yield schemas[schema["$ref"].removeprefix(REF)]
    for part in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _alternatives(part, schemas)


def _table(
    title: str, rows: list[tuple[str, dict[str, Any], bool]], schemas: dict[str, Any]
) -> str:
    if not rows:
        return ""
    shown = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if required else ''}"
        f"<td>{escape(_type(schema, schemas))}<td>{_words(_note(schema))}"
        for name, schema, required in rows
    )
    return f"<table><tr><th>{escape(title)}<th>Type<th>{shown}</table>"


def _type(schema: dict[str, Any], schemas: dict[str, Any], depth: int = _DEPTH) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix(REF)]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options and depth:
        return " or ".join(dict.fromkeys(_type(one, schemas, depth - 1) for one in options))
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array" and depth:
        return f"list of {_type(schema.get('items', {}), schemas, depth - 1)}"
    kind = schema.get("type", "anything")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _note(schema: dict[str, Any]) -> str:
    limits = [
        f"{word} {schema[name]}"
        for name, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if name in schema
    ]
    if schema.get("default") is not None:
        limits.append(f"default {json.dumps(schema['default'])}")
    return "; ".join(filter(None, (schema.get("description", ""), " ".join(limits))))


def _curl(path: str, media: str, body: dict[str, Any]) -> str:
    if media == FORM:
        fields = [f"{name}={'@' * (name == 'file')}{value}" for name, value in body.items()]
        return f'curl -s $URL{path} -H "x-api-key: $KEY" \\\n  ' + " ".join(
            f"-F '{field}'" for field in fields
        )
    quoted = json.dumps(body).replace("'", "'\\''")
    return (
        f"curl -s $URL{path} -H \"x-api-key: $KEY\" -H 'content-type: application/json' \\\n"
        f"  -d '{quoted}'"
    )


def _words(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
