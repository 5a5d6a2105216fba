"""What is borrowed of vLLM between a body and the engine core: parsing and admission."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi._compat.v2 import ModelField
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from vllm.exceptions import VLLMError
from vllm.v1.engine.async_llm import AsyncLLM

# vLLM puts these fields of a body among its `vllm_xargs`, and takes their form for granted there.
RESERVED = {"vllm_xargs": frozenset(("kv_transfer_params", "ec_transfer_params"))}


def free_failed_requests(llm: AsyncLLM) -> None:
    """Take back what a request left that `llm` could not add.

    `AsyncLLM._add_request` registers a request in the output processor and then sends it to the
    core. When sending fails, because the message cannot be encoded or the caller is cancelled, the
    entry stays for ever and counts against the queue's limit. For the choices of a request with
    n > 1 vLLM takes them back itself.
    """
    add = llm._add_request

    async def add_or_free(request: Any, *args: Any, **kwargs: Any) -> None:
        try:
            await add(request, *args, **kwargs)
        except BaseException:
            if not llm.errored:
                await llm.abort(request.request_id, internal=True)
            raise

    llm._add_request = add_or_free


def queue_limit(llm: AsyncLLM) -> int | None:
    """How many choices of requests the engine holds at most, running and waiting; None: any
    number."""
    limit = llm.vllm_config.scheduler_config.max_num_queued_reqs
    return None if limit is None else int(limit)


def request_models(app: FastAPI) -> dict[str, tuple[type[BaseModel], ...]]:
    """The models of the bodies that each path of vLLM's app takes."""
    return {
        route.path: _models(route.body_field.field_info.annotation)
        for route in app.routes
        if isinstance(route, APIRoute) and route.body_field is not None
    }


def _models(annotation: Any) -> tuple[type[BaseModel], ...]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _models(typing.get_args(annotation)[0])
    if isinstance(annotation, type):
        return (annotation,)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(one for part in typing.get_args(annotation) for one in _models(part))
    raise TypeError(f"a body of the type {annotation}: extend request_models")


def refuse_what_validators_raise(app: FastAPI) -> None:
    """Let whatever is raised while a body becomes its model be the body's fault.

    vLLM's models have validators that run before pydantic's own check, and take the shape of what
    they look into for granted: a tool without a `function` raises a KeyError, which would be a 500.
    """
    for route in app.routes:
        if isinstance(route, APIRoute):
            for field in route.dependant.body_params:
                _refuse_what_raises(field)


def change_bodies(app: FastAPI, path: str, change: Callable[[Any], Any]) -> None:
    """Let `change` see a body of this path, parsed, before its model does."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == path:
            for field in route.dependant.body_params:
                _change(field, change)


def _change(field: ModelField, change: Callable[[Any], Any]) -> None:
    validate = field.validate

    def change_and_validate(value: Any, *args: Any, **kwargs: Any) -> Any:
        return validate(change(value), *args, **kwargs)

    field.validate = change_and_validate  # type: ignore[method-assign]


def _refuse_what_raises(field: ModelField) -> None:
    validate = field.validate

    def validate_or_refuse(
        value: Any, values: Any = None, *, loc: tuple[int | str, ...] = ()
    ) -> tuple[Any, list[Any]]:
        try:
            return validate(value, values or {}, loc=loc)
        except (ValidationError, VLLMError):
            raise  # these say what is wrong
        except Exception as error:  # noqa: BLE001 - whatever it is, the body made it
            said = {
                "type": "value_error",
                "loc": loc,
                "msg": f"the body is malformed: {type(error).__name__}: {error}",
                "input": value,
            }
            return None, [said]

    field.validate = validate_or_refuse  # type: ignore[method-assign]
