"""What pydantic finds, in words that say where it is and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from loadtests.scenarios.model import Scenario
from loadtests.scenarios.source import Path, Source

BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
NUMBERS = ("float_parsing", "float_type", "int_parsing", "int_type", "int_from_float")


def explain(source: Source, error: ValidationError) -> list[str]:
    """Return a line for each thing that is wrong, in the order of the file."""
    found = []
    errors = [(*_walk(each["loc"]), each) for each in error.errors(include_url=False)]
    paths = [path for path, _, _, _ in errors]
    for path, owner, inner, each in errors:
        # A list without its items that are wrong may look empty.
        if each["type"] == "too_short" and any(
            other[: len(path)] == path and other != path for other in paths
        ):
            continue
        found.append((path, _message(path, owner, inner, each)))
    return tell(source, found)


def tell(source: Source, found: Iterable[tuple[Path, str]]) -> list[str]:
    """Return a line for each problem, with its place, in the order of the file."""
    ordered = sorted(found, key=lambda each: source.line(each[0]))
    return [f"{source.place(path)}: {dotted(path)}: {message}" for path, message in ordered]


def dotted(path: Path) -> str:
    """Return a path as `--set` takes it; the document itself is `scenario`."""
    return ".".join(str(part) for part in path) or "scenario"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?", or what is known where nothing is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; it can be {', '.join(f'`{each}`' for each in names)}" if names else ""


def _message(
    path: Path, owner: type[BaseModel] | None, inner: list[type[BaseModel]], error: Any
) -> str:
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    last, kinds = str(path[-1]) if path else "", _kinds(inner)
    if kind == "extra_forbidden" and owner is not None:
        return f"there is no such field{nearest(last, owner.model_fields)}"
    if kind == "missing":
        about = _about(owner, last)
        return f"is missing; write `{last}:`{about}"
    if kind == "union_tag_not_found":
        shown = ", ".join(f"`{each}`" for each in kinds)
        return f"does not say which kind it is; write `kind:` with one of {shown}"
    if kind == "union_tag_invalid":
        return f"there is no kind {context['tag']!r}{nearest(str(context['tag']), kinds)}"
    if kind == "literal_error":
        return f"{given!r} is none of {context['expected']}"
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return f"must be {words} {context[name]:g}, and is {given!r}"
    if kind in NUMBERS:
        whole = "whole " if kind.startswith("int") else ""
        return f"must be a {whole}number, and is {_shown(given)}"
    if kind == "finite_number":
        return f"must be a number with an end, and is {_shown(given)}"
    if kind == "too_short":
        return "is empty; it needs at least one item"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        if len(kinds) > 1:
            number = "a number, or have " if "fixed" in kinds else ""
            shown = ", ".join(f"`{each}`" for each in kinds)
            return f"must be {number}fields with a `kind:` ({shown}), and is {_shown(given)}"
        names = ", ".join(f"`{each}`" for each in inner[0].model_fields) if inner else ""
        fields = f" ({names})" if names else ""
        return f"must have fields of its own{fields}, and is {_shown(given)}"
    if kind == "tuple_type":
        return f"must be a list (lines that begin with `- `, or [a, b]), and is {_shown(given)}"
    if kind == "string_type":
        return f"must be text, and is {_shown(given)}; put it in quotes"
    if kind.startswith("bool"):
        return f"must be true or false, and is {_shown(given)}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, and is {_shown(given)}"


def _shown(given: Any) -> str:
    if given is None:
        return "empty"
    if isinstance(given, dict):
        return "a mapping"
    return "a list" if isinstance(given, list | tuple) else repr(given)


def _about(model: type[BaseModel] | None, name: str) -> str:
    field = model.model_fields.get(name) if model else None
    return f" ({field.description})" if field is not None and field.description else ""


def _walk(
    loc: tuple[str | int, ...],
) -> tuple[Path, type[BaseModel] | None, list[type[BaseModel]]]:
    """Return the path in the document of what pydantic names, without the kinds between.

    Also the model that the last part is a field of, and the models that could stand there.
    """
    path: list[str | int] = []
    at: Any = Scenario
    owner: type[BaseModel] | None = None
    for part in loc:
        options = list(_models(at))
        if len(options) > 1 and part in _kinds(options):
            at = next(each for each in options if part in _kinds([each]))
            continue
        path.append(part)
        owner = options[0] if options else None
        if owner is not None:
            field = owner.model_fields.get(str(part))
            at = Any if field is None else field.annotation
        else:  # an item of a list, or a value of a mapping
            at = next((arg for arg in get_args(_plain(at)) if arg is not str), Any)
    return tuple(path), owner, list(_models(at))


def _plain(annotation: Any) -> Any:
    """Return a type without what is added to it, and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    plain = _plain(annotation)
    if get_origin(plain) in (Union, UnionType):
        for arg in get_args(plain):
            yield from _models(arg)
    elif isinstance(plain, type) and issubclass(plain, BaseModel):
        yield plain


def _kinds(models: list[type[BaseModel]]) -> list[str]:
    found: list[str] = []
    for model in models:
        field = model.model_fields.get("kind")
        found += get_args(field.annotation) if field is not None else ()
    return found
