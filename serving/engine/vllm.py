"""vLLM as an engine: the only module that imports vLLM, together with `vllm_app.py`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from argparse import Namespace
from contextlib import AsyncExitStack
from typing import Any

from huggingface_hub import snapshot_download
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.envs import enable_envs_cache
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

from serving.catalogue.spec import EngineSpec
from serving.engine import vllm_collector
from serving.engine.adapter_files import check_adapter
from serving.engine.adapters import SPARE_SLOTS, AdapterPool
from serving.engine.metrics import AdapterMetrics
from serving.engine.protocol import (
    AdapterRef,
    CompletionCall,
    Emit,
    End,
    Engine,
    EngineLoad,
    HttpCall,
    Reply,
    Sampling,
)
from serving.engine.vllm_app import OpenAIApp
from serving.engine.vllm_outputs import Outputs
from serving.errors import (
    ContextLengthExceeded,
    EngineFailed,
    InvalidField,
    InvalidRequest,
    Overloaded,
)

# Longer prompts are tokenized in a thread: a long one takes milliseconds, in which every other
# stream of this replica would stand still.
INLINE_TOKENIZE_CHARS = 4096
MAX_QUEUED = 2048


class LatestStats(StatLoggerBase):  # type: ignore[misc]  # vLLM is not typed for us
    """Keeps the scheduler's newest counts for load reports."""

    def __init__(self, vllm_config: Any = None, engine_index: int = 0) -> None:
        self.running = 0
        self.waiting = 0

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.waiting = scheduler_stats.num_waiting_reqs

    def log_engine_initialized(self) -> None:
        pass


def cli_arguments(spec: EngineSpec) -> list[str]:
    """vLLM's own command line for a model: our few settings, then `engine_args` untouched."""
    args: dict[str, Any] = {
        "model": spec.weights,
        "served-model-name": spec.id,
        "max-model-len": spec.context,
        "tensor-parallel-size": spec.tensor_parallel,
        # Waiting and running together. A longer queue only means that its end has given up by
        # the time it is served; `engine_args` can say otherwise.
        "max-num-queued-reqs": MAX_QUEUED,
    }
    if spec.lora is not None:
        args["enable-lora"] = True
        args["max-loras"] = spec.lora.max_loaded + SPARE_SLOTS
        args["max-lora-rank"] = spec.lora.max_rank
    args |= {key.replace("_", "-"): value for key, value in spec.engine_args.items()}
    line: list[str] = []
    for key, value in args.items():
        if value is True:
            line.append(f"--{key}")
        elif value is False:
            line.append(f"--no-{key}")
        elif isinstance(value, dict):
            line += [f"--{key}", json.dumps(value)]
        elif isinstance(value, list):
            line += [f"--{key}", *(str(item) for item in value)]
        elif value is not None:
            line += [f"--{key}", str(value)]
    return line


class VllmEngine(Engine):
    """One `AsyncLLM` and vLLM's OpenAI app on it. Make it with `start`."""

    def __init__(self, spec: EngineSpec, llm: AsyncLLM, stats: LatestStats) -> None:
        self._spec = spec
        self._llm = llm
        self._stats = stats
        self._tokenizer = llm.renderer.get_tokenizer()
        self._lora_numbers = itertools.count(1)
        self._adapter_metrics = AdapterMetrics()
        self.max_model_len = int(llm.model_config.max_model_len)
        self._adapters: AdapterPool[LoRARequest] = AdapterPool(
            spec.lora.max_loaded if spec.lora else 0, self._load_adapter, self._unload_adapter
        )
        self._app: OpenAIApp | None = None

    @classmethod
    async def start(cls, spec: EngineSpec) -> VllmEngine:
        """Load the model and start the engine core; takes seconds to minutes."""
        parser = make_arg_parser(FlexibleArgumentParser(prog=f"model {spec.id}: engine_args"))
        args: Namespace = parser.parse_args(cli_arguments(spec))
        validate_parsed_serve_args(args)
        stats = LatestStats()
        vllm_collector.install()
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(
            UsageContext.OPENAI_API_SERVER
        )
        llm = AsyncLLM.from_vllm_config(
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[lambda _config, _index: stats],
            disable_log_stats=args.disable_log_stats,
        )
        engine = cls(spec, llm, stats)
        engine._app = await OpenAIApp.build(llm, args, spec.id)
        # vLLM reads some of its variables for every token.
        enable_envs_cache()
        return engine

    # Create Completion

    async def generate(self, call: CompletionCall, emit: Emit) -> None:
        """See `Engine.generate`."""
        token_ids = await self._tokenize(call.prompt)
        params = self._sampling_params(call, len(token_ids))
        async with AsyncExitStack() as stack:
            lora = None
            if call.adapter is not None:
                lora = await stack.enter_async_context(self._adapters.hold(call.adapter))
            try:
                await self._run(call.request_id, token_ids, params, lora, emit)
            except (EngineDeadError, EngineGenerateError) as error:
                raise EngineFailed("the engine of this replica failed") from error
            except GracefulHTTPError as error:
                raise Overloaded(f"the queue of this replica is full: {error}") from None
            except VLLMClientError as error:
                raise InvalidRequest(str(error)) from None

    async def _run(
        self,
        request_id: str,
        token_ids: list[int],
        params: SamplingParams,
        lora: LoRARequest | None,
        emit: Emit,
    ) -> None:
        """What `AsyncLLM.generate` does, but for the task that it wakes for every token."""
        outputs = Outputs(len(token_ids), emit)
        adding = asyncio.ensure_future(
            self._llm.add_request(request_id, tokens_input(token_ids), params, lora_request=lora)
        )
        try:
            collector = await asyncio.shield(adding)
        except asyncio.CancelledError:
            # Shielded because a request that is cancelled halfway in would run on in the engine.
            await self._abort((await adding).request_id)
            raise
        outputs.attach(collector)
        try:
            await outputs.finished
        except BaseException:
            await self._abort(collector.request_id)
            raise

    async def _abort(self, internal_id: str) -> None:
        """A no-op for a request that has ended, and in an engine that is dead."""
        if not self._llm.errored:
            await self._llm.abort(internal_id, internal=True)

    async def _tokenize(self, prompt: str) -> list[int]:
        if len(prompt) <= INLINE_TOKENIZE_CHARS:
            return self._encode(prompt)
        return await asyncio.to_thread(self._encode, prompt)

    def _encode(self, prompt: str) -> list[int]:
        """Token IDs as the model wants them: as is, or as one user message of its template."""
        if self._spec.prompt_style == "raw":
            return list(self._tokenizer.encode(prompt))
        return list(
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                chat_template=self._spec.chat_template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        )

    def _sampling_params(self, call: CompletionCall, prompt_tokens: int) -> SamplingParams:
        given: Sampling = call.sampling
        room = self.max_model_len - prompt_tokens
        if prompt_tokens == 0:
            raise InvalidField("'prompt': has no tokens", param="prompt")
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {prompt_tokens} tokens; the context of model '{call.model}' is "
                f"{self.max_model_len} tokens, prompt and completion together",
                param="prompt",
            )
        if given.max_tokens is not None and given.max_tokens > room:
            raise ContextLengthExceeded(
                f"the prompt has {prompt_tokens} tokens and max_tokens is {given.max_tokens}; "
                f"the context of model '{call.model}' is {self.max_model_len} tokens, prompt and "
                "completion together",
                param="model_parameters.max_tokens",
            )
        return SamplingParams(
            temperature=given.temperature,
            max_tokens=room if given.max_tokens is None else given.max_tokens,
            stop=list(given.stop) or None,
            top_p=1.0 if given.top_p is None else given.top_p,
            top_k=0 if given.top_k is None else given.top_k,
            frequency_penalty=given.frequency_penalty or 0.0,
            presence_penalty=given.presence_penalty or 0.0,
            output_kind=(RequestOutputKind.DELTA if call.stream else RequestOutputKind.FINAL_ONLY),
        )

    # OpenAI

    async def http(self, call: HttpCall, body: bytes, reply: Reply) -> End:
        """See `Engine.http`."""
        assert self._app is not None
        async with AsyncExitStack() as stack:
            lora = None
            if call.adapter is not None:
                lora = await stack.enter_async_context(self._adapters.hold(call.adapter))
            return await self._app.run(call, body, reply, lora)

    # adapters

    async def _load_adapter(self, ref: AdapterRef) -> LoRARequest:
        """Checked first, then loaded by `add_lora`, which fails without harm to the engine."""
        assert self._spec.lora is not None
        with self._adapter_metrics.loading():
            await asyncio.to_thread(
                check_adapter,
                ref.path,
                base_path=_checkpoint_directory(self._spec.weights),
                base_names=self._spec.base_names,
                max_rank=self._spec.lora.max_rank,
            )
            number = next(self._lora_numbers)
            # The name is part of vLLM's prefix cache key; the number keeps a new version of an
            # adapter from meeting blocks that its predecessor computed.
            request = LoRARequest(
                lora_name=f"{ref.id}#{number}", lora_int_id=number, lora_path=ref.path
            )
            try:
                await self._llm.add_lora(request)
            except EngineDeadError as error:
                raise EngineFailed("the engine of this replica failed") from error
            return request

    async def _unload_adapter(self, ref: AdapterRef, request: LoRARequest) -> None:
        await self._llm.remove_lora(request.lora_int_id)
        self._adapter_metrics.unloaded()

    # state

    def load(self) -> EngineLoad:
        """See `Engine.load`."""
        return EngineLoad(self._stats.running, self._stats.waiting, self._adapters.held)

    async def check(self) -> None:
        """See `Engine.check`."""
        if self._llm.errored:
            raise EngineFailed("the engine core is dead")

    async def close(self) -> None:
        """See `Engine.close`."""
        await asyncio.to_thread(self._llm.shutdown)


def _checkpoint_directory(weights: str) -> str:
    """Where the checkpoint's files are: `weights` itself, or the repository's local snapshot."""
    if os.path.isdir(weights):
        return weights
    try:
        return str(snapshot_download(weights, local_files_only=True))
    except (OSError, ValueError):  # huggingface_hub's errors derive from these
        return weights
