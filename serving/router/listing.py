"""Model IDs as a list of entries: what is deployed, and on request the rest of what is known."""

from __future__ import annotations

from serving.api.models import ModelEntry
from serving.catalogue.spec import AdapterSpec, AnySpec, EngineSpec, RetiredSpec, UpstreamSpec
from serving.router.fleet import Fleet
from serving.router.resolve import Resolver, Route


def list_models(resolver: Resolver, fleet: Fleet, *, everything: bool) -> list[ModelEntry]:
    """Entries in catalogue order: the deployed ones, with `everything` also the known ones."""
    entries = [_deployed(name, resolver.resolve(name), fleet) for name in resolver.ids]
    if everything:
        entries += [_known(spec, resolver) for spec in resolver.others]
    return entries


def one_model(model_id: str, resolver: Resolver, fleet: Fleet) -> ModelEntry:
    """The entry of a deployed ID.

    Raises:
        UnknownModel, NotDeployed, RetiredModel: as `Resolver.resolve`.
    """
    return _deployed(model_id, resolver.resolve(model_id), fleet)


def _deployed(model_id: str, route: Route, fleet: Fleet) -> ModelEntry:
    engine, alias = route.engine, model_id != route.model
    kind = "alias" if alias else {"base": "engine"}.get(route.kind, route.kind)
    return ModelEntry(
        id=model_id,
        kind=kind,
        deployed=True,
        root=route.model,
        parent=engine.id if route.adapter is not None and not alias else None,
        context=engine.context,
        chat=route.chat,
        replicas=fleet.ready(engine.id),
        more={"provider": engine.provider} if isinstance(engine, UpstreamSpec) else {},
    )


def _known(spec: AnySpec, resolver: Resolver) -> ModelEntry:
    context = spec.context if isinstance(spec, EngineSpec | UpstreamSpec) else None
    more: dict[str, object] = {}
    if isinstance(spec, UpstreamSpec | RetiredSpec):
        more["provider"] = spec.provider
    if isinstance(spec, RetiredSpec):
        more |= {"retired_on": spec.retired_on, "successor": spec.successor}
    parent, style = None, None
    if isinstance(spec, EngineSpec):
        style = spec.prompt_style
    elif isinstance(spec, AdapterSpec):
        parent, base = spec.base, resolver.engines.get(spec.base)
        context = base.context if base else None
        style = spec.prompt_style or (base.prompt_style if base else None)
    chat = style == "chat"
    return ModelEntry(spec.id, spec.kind, False, spec.id, parent, context, chat, more=more)
