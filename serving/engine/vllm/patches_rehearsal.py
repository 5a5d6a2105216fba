"""What preparing a request in a helper process borrows of vLLM's internals.

As in `patches.py`, each part is a function or a class, and
`tests/unit/engine/vllm/test_patches_rehearsal.py` holds each assumption against the installed
version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.renderers import BaseRenderer
from vllm.renderers.registry import renderer_from_config
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.request import StructuredOutputRequest

Inputs = list[dict[str, Any]]
# What a prompt of text becomes; another key would not survive the way to the engine server.
_INPUT_KEYS = frozenset(("type", "prompt_token_ids", "prompt", "arrival_time", "cache_salt"))


class RehearsalEngine(AsyncLLM):  # type: ignore[misc]  # vLLM is not typed for us
    """An `AsyncLLM` without an engine core: whatever a request meets before the core is real.

    `added` is called with the parameters of each request that passed vLLM's checks, `asked` when
    the first answer is waited for, which never comes: all requests of a call have been added by
    then.
    """

    def __init__(self, config: VllmConfig, tasks: tuple[str, ...]) -> None:
        # Not `super().__init__`: that starts the core.
        self.vllm_config = config
        self.model_config = config.model_config
        self.scheduler_config = config.scheduler_config
        self.observability_config = config.observability_config
        self.log_requests = False
        self.log_stats = False
        self.renderer = renderer_from_config(config)
        self.input_processor = InputProcessor(config, self.renderer)
        # `patches.watch_requests` looks at this.
        self.output_processor = SimpleNamespace(request_states={}, add_request=None)
        self.tasks = tasks
        self.added: Callable[[Any], None] = lambda params: None
        self.asked: Callable[[], None] = lambda: None

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **more: Any) -> Any:
        return self._add(prompt, sampling_params, request_id, more)

    def encode(self, prompt: Any, pooling_params: Any, request_id: str, **more: Any) -> Any:
        return self._add(prompt, pooling_params, request_id, more)

    def _add(self, prompt: Any, params: Any, request_id: str, more: dict[str, Any]) -> Any:
        known = {key: more[key] for key in ("lora_request", "priority") if key in more}
        request = self.input_processor.process_inputs(
            request_id, prompt, params, supported_tasks=self.tasks, **known
        )
        self.added(request.sampling_params)
        return self._answers()

    async def _answers(self) -> AsyncIterator[Any]:
        self.asked()
        await asyncio.Event().wait()
        yield None

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return self.tasks

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """The engine's to check, when the request gets there."""

    async def is_tracing_enabled(self) -> bool:
        return False

    @property
    def errored(self) -> bool:
        return False

    def shutdown(self, timeout: float | None = None) -> None:
        """There is nothing to stop."""


class Grammars:
    """Compiles grammars as the engine core will, with the core's own code."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        # One for each library: a manager is for one, which its first request decides.
        self._managers: dict[str, StructuredOutputManager] = {}

    def compile(self, params: SamplingParams) -> None:
        """Compile what `params` constrain their output to.

        Raises:
            VLLMValidationError: it cannot be compiled.
        """
        library = params.structured_outputs._backend
        manager = self._managers.get(library)
        if manager is None:
            manager = self._managers[library] = StructuredOutputManager(self._config)
            manager._use_async_grammar_compilation = False
        request = SimpleNamespace(
            request_id="",
            sampling_params=params,
            structured_output_request=StructuredOutputRequest(params.structured_outputs),
        )
        manager.grammar_init(request)
        found = request.structured_output_request.grammar
        if isinstance(found, Exception):
            raise VLLMValidationError(f"the grammar cannot be compiled: {found}") from None


def constraint_fields(params: StructuredOutputsParams) -> dict[str, Any]:
    """A checked constraint as plain data, with what vLLM has noted in it."""
    return asdict(params)


def constraint(fields: Mapping[str, Any]) -> StructuredOutputsParams:
    """What `constraint_fields` made plain."""
    noted = {name: value for name, value in fields.items() if name.startswith("_")}
    params = StructuredOutputsParams(
        **{name: value for name, value in fields.items() if name not in noted}
    )
    for name, value in noted.items():
        setattr(params, name, value)
    return params


def record_renders(
    renderer: BaseRenderer, took: Callable[[list[Any], Inputs | None], None]
) -> None:
    """Call `took` with the last messages and the engine inputs of what is rendered; None for inputs
    that are more than text."""
    chat, completion = renderer.render_chat_async, renderer.render_cmpl_async

    async def render_chat(*args: Any, **kwargs: Any) -> Any:
        conversations, inputs = await chat(*args, **kwargs)
        took([conversation[-1:] for conversation in conversations], _plain(inputs))
        return conversations, inputs

    async def render_completion(*args: Any, **kwargs: Any) -> Any:
        inputs = await completion(*args, **kwargs)
        took([], _plain(inputs))
        return inputs

    renderer.render_chat_async = render_chat
    renderer.render_cmpl_async = render_completion


def _plain(inputs: Sequence[Mapping[str, Any]]) -> Inputs | None:
    if all(found["type"] == "token" and found.keys() <= _INPUT_KEYS for found in inputs):
        return [dict(found) for found in inputs]
    return None


class Rehearsed:
    """What a helper has found out about the current task's request, and is not done twice."""

    def __init__(self) -> None:
        self._renders: ContextVar[tuple[list[Any], Inputs] | None] = ContextVar(
            "renders", default=None
        )
        self._constraint: ContextVar[Mapping[str, Any] | None] = ContextVar(
            "constraint", default=None
        )
        self._turn: ContextVar[asyncio.Lock | None] = ContextVar("turn", default=None)

    def install(self, llm: AsyncLLM) -> None:
        """Have vLLM use it, in this process."""
        self._replay_renders(llm.renderer)
        self._skip_known_constraints()
        self._add_in_turns(llm)

    def set(
        self, renders: tuple[list[Any], Inputs] | None, constraint: Mapping[str, Any] | None
    ) -> None:
        """Of the request that the current task, and those it starts, work on."""
        self._renders.set(renders)
        self._constraint.set(constraint)
        self._turn.set(asyncio.Lock())

    def _replay_renders(self, renderer: BaseRenderer) -> None:
        """`render_chat_async` and `render_cmpl_async` write chats and make tokens."""
        chat, completion = renderer.render_chat_async, renderer.render_cmpl_async

        async def render_chat(*args: Any, **kwargs: Any) -> Any:
            known = self._renders.get()
            return await chat(*args, **kwargs) if known is None else known

        async def render_completion(*args: Any, **kwargs: Any) -> Any:
            known = self._renders.get()
            return await completion(*args, **kwargs) if known is None else known[1]

        renderer.render_chat_async = render_chat
        renderer.render_cmpl_async = render_completion

    def _skip_known_constraints(self) -> None:
        """vLLM converts a grammar on the event loop to see whether it is valid."""
        check = SamplingParams._validate_structured_outputs

        def check_unknown(params: Any, *args: Any, **kwargs: Any) -> None:
            known = self._constraint.get()
            if known is None or params.structured_outputs is None:
                check(params, *args, **kwargs)
            else:
                params.structured_outputs = constraint(known)

        SamplingParams._validate_structured_outputs = check_unknown

    def _add_in_turns(self, llm: AsyncLLM) -> None:
        """Let others have the event loop between two prompts of one request: vLLM adds a thousand
        in one go."""
        add = llm.add_request

        async def add_in_turn(*args: Any, **kwargs: Any) -> Any:
            turn = self._turn.get()
            if turn is None:
                return await add(*args, **kwargs)
            async with turn:
                # Before and not after: what is cancelled here has not been added.
                await asyncio.sleep(0)
                return await add(*args, **kwargs)

        llm.add_request = add_in_turn
