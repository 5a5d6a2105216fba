"""Checks how a catalogue's entries refer to each other; each finding has its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from serving.catalogue.providers import TASKS, Provider
from serving.catalogue.spec import AnySpec


@dataclass(frozen=True)
class Misreference:
    """A wrong reference and its place in a models file (as pydantic's `loc`)."""

    place: tuple[str | int, ...]
    message: str


class MisreferenceError(ValueError):
    """A catalogue has wrong references: to nothing, or to an entry that cannot be meant."""

    def __init__(self, findings: list[Misreference]) -> None:
        super().__init__("\n".join(finding.message for finding in findings))
        self.findings = findings


def misreferences(
    models: Sequence[AnySpec], aliases: Mapping[str, str], providers: Mapping[str, Provider]
) -> Iterator[Misreference]:
    """Yield IDs that are used twice, and wrong references of deployed models and of aliases."""
    known: dict[str, AnySpec] = {}
    for index, model in enumerate(models):
        if model.id in known:
            message = f"model '{model.id}': id: used twice; IDs are unique, rename or remove one"
            yield Misreference(("models", index, "id"), message)
        known.setdefault(model.id, model)
    for index, model in enumerate(models):
        if not model.deployed:
            continue
        if model.kind == "adapter":
            base = known.get(model.base)
            if wrong := _wrong_base(base):
                yield Misreference(
                    ("models", index, "base"), f"model '{model.id}': base: '{model.base}' {wrong}"
                )
                continue
            for field in ("prompt_style", "chat_template"):
                if getattr(base, "vision", False) and getattr(model, field) is not None:
                    yield Misreference(
                        ("models", index, field),
                        f"model '{model.id}': {field}: an adapter of a vision model has its "
                        f"base's; write `{field}: null`",
                    )
        elif model.kind == "upstream" and model.provider not in providers:
            names = ", ".join(providers) or "none"
            yield Misreference(
                ("models", index, "provider"),
                f"model '{model.id}': provider: '{model.provider}' is none of `providers:` "
                f"({names}); add it there with its `base_url`",
            )
        elif model.kind == "upstream" and _wrong_task(model.task, providers[model.provider]):
            yield Misreference(
                ("models", index, "task"),
                f"model '{model.id}': task: '{model.provider}' speaks "
                f"{providers[model.provider].dialect}, which has no models for '{model.task}'",
            )
    for alias, target in aliases.items():
        if wrong := _wrong_alias(known.get(alias), target, known.get(target)):
            yield Misreference(("aliases", alias), f"alias '{alias}': {wrong}")


def _wrong_task(task: str, provider: Provider) -> bool:
    """True if a provider has no models for a task."""
    return task not in TASKS[provider.dialect]


def _wrong_base(base: AnySpec | None) -> str | None:
    if base is None or base.kind != "engine":
        return "is no engine model; name the model that the adapter was trained on"
    if not base.deployed:
        return f"is not deployed; add `- {base.id}` to `models:`"
    if base.lora is None:
        return f"has no `lora:`; add `lora: {{}}` to '{base.id}'"
    return None


def _wrong_alias(taken: AnySpec | None, target: str, aimed: AnySpec | None) -> str | None:
    if taken is not None and taken.deployed and taken.kind != "retired":
        return "is also a model ID; rename the alias, or do not deploy that model"
    if aimed is None:
        return f"points to '{target}', which is no model ID; an alias names a deployed model"
    if aimed.kind == "retired":
        return f"points to '{target}', which is retired; an alias names a deployed model"
    if not aimed.deployed:
        return f"points to '{target}', which is not deployed; add `- {target}` to `models:`"
    return None
