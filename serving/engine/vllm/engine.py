"""vLLM as an engine. No module outside this folder imports vLLM."""

from __future__ import annotations

import asyncio
import itertools
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from serving.api.audio import PATHS as AUDIO
from serving.api.audio import TRANSCRIPTIONS
from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.adapter_files import check_adapter
from serving.engine.adapters import AdapterPool
from serving.engine.bodies.check import Checked
from serving.engine.checkpoints import fetch_adapter, local_checkpoint
from serving.engine.images.chat import load_taken
from serving.engine.images.loader import ImageLoader
from serving.engine.interface import Emit, Engine, EngineLoad, Reply, Suspect, Tally
from serving.engine.prompt_size import completion_limit
from serving.engine.prompts import AS_THE_BASE, Prompts
from serving.engine.queue_limits import QueueLimits
from serving.engine.suspects import RunningCalls
from serving.engine.vllm import patches
from serving.engine.vllm.accused import AccusedRequests
from serving.engine.vllm.arguments import VLLM_TASKS, cli_arguments
from serving.engine.vllm.chats import chat_format
from serving.engine.vllm.image_prompts import ImagePrompts
from serving.engine.vllm.media_names import MediaNames
from serving.engine.vllm.openai_app import OpenAIApp
from serving.engine.vllm.outputs import Outputs
from serving.engine.vllm.parsers import load_plugins
from serving.engine.vllm.patches import admission, audio, pooling
from serving.engine.vllm.patches.processes import start_processes
from serving.engine.vllm.patches.shares import Shares
from serving.engine.vllm.patches.turns import Turns
from serving.engine.vllm.prefill import cut_prompts
from serving.engine.vllm.preparation import Preparation
from serving.engine.vllm.prepare_limits import PrepareLimits
from serving.engine.vllm.salts import Salts
from serving.engine.vllm.usage import CallUsage, UsageWatch
from serving.errors import EngineFailed, InvalidField, InvalidRequest, Overloaded
from serving.observability.engine_metrics import AdapterMetrics, QueueMetrics
from serving.wire.messages import AdapterRef, Call, CompletionCall, HttpCall, Sampling

# Endpoints that ask the tokenizer only: they load no adapter, so that none is evicted for them.
WITHOUT_ADAPTER = frozenset(("/tokenize", "/detokenize", "/v1/messages/count_tokens"))


# Where a model of such a task is asked.
TAKES_NO_PROMPT = {
    "embed": "/v1/embeddings",
    "score": "/score or /rerank",
    "transcribe": TRANSCRIPTIONS,
}


class VllmEngine(Engine):
    """One `AsyncLLM` and vLLM's OpenAI app on it. Make it with `start`."""

    def __init__(
        self,
        spec: EngineSpec,
        llm: AsyncLLM,
        stats: patches.LatestStats,
        images: ImageLimits,
        preparation: Preparation,
        accused: AccusedRequests,
    ) -> None:
        self._spec = spec
        self._llm = llm
        self._preparation = preparation
        preparation.rehearsed.install(llm)
        self._stats = stats
        admission.free_failed_requests(llm)
        self._turns = Turns(llm, QueueLimits(), QueueMetrics())
        self._shares = Shares(llm)
        self._usage = UsageWatch(llm)
        self._salts = Salts()
        patches.salt_requests(llm, self._salts.salt)
        self._media = MediaNames(llm.renderer, self._salts.name)
        self._calls: RunningCalls[CallUsage] = RunningCalls(lambda use: use.charges(accused.read()))
        self._lora_numbers = itertools.count(1)
        self._own_numbers = itertools.count(1)
        self._adapter_metrics = AdapterMetrics()
        self.max_model_len = int(llm.model_config.max_model_len)
        self._adapters: AdapterPool[LoRARequest] = AdapterPool(
            spec.lora.max_loaded if spec.lora else 0, self._load_adapter, self._unload_adapter
        )
        self._app: OpenAIApp | None = None
        self._images: ImageLoader | None = None
        if spec.vision:
            self._images = ImageLoader(images)
            self._image_prompts = ImagePrompts(spec, llm.renderer)
        # None for a model that continues no text: only vLLM's app reads its inputs.
        self._prompts: Prompts | None = None
        if spec.task == "generate":
            chats = chat_format(spec, llm.renderer)
            self._prompts = Prompts(
                llm.renderer.get_tokenizer(),
                *(spec.prompt_style, chats.template, self.max_model_len),
                fixed=chats.fixed,
                in_parts=chats.in_parts,
            )

    @classmethod
    async def start(cls, spec: EngineSpec, images: ImageLimits) -> VllmEngine:
        """Load the model and start the engine core; takes seconds to minutes."""
        parser = make_arg_parser(FlexibleArgumentParser(prog=f"model {spec.id}: engine_args"))
        args: Namespace = parser.parse_args(cli_arguments(spec, images))
        validate_parsed_serve_args(args)
        load_plugins(args)
        stats = patches.LatestStats()
        accused = AccusedRequests()
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(
            UsageContext.OPENAI_API_SERVER
        )
        cut_prompts(config, QueueLimits().prefill)
        limits = PrepareLimits()
        nursery = Preparation.nursery(spec, args, config, limits)
        start_processes(eager=config.model_config.enforce_eager)
        llm = AsyncLLM.from_vllm_config(
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[lambda _config, _index: stats],
            disable_log_stats=args.disable_log_stats,
        )
        _check_task(spec, await llm.get_supported_tasks(), llm)
        engine = cls(spec, llm, stats, images, Preparation.of(nursery, limits), accused)
        engine._app = await OpenAIApp.build(llm, args, spec.id)
        engine._app.replay_pooled(engine._preparation.pooled)
        await engine._warm_up()
        patches.keep_environment()
        return engine

    # Create Completion

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        """See `Engine.generate`."""
        if self._prompts is None:
            raise InvalidRequest(
                f"model '{call.model}' takes no prompts; use {TAKES_NO_PROMPT[self._spec.task]}",
                param="model",
            )
        usage = self._begin(call, b"", tally)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._calls.run(call, b"", usage))
            self._salts.enter(call.cache_space)
            if call.images:
                stack.enter_context(self._media.sent_again_after_failure())
                prompt = await self._prompt_with_images(call)
                tally.images = len(call.images)
            else:
                own = call.prompt_format or AS_THE_BASE
                prompt = tokens_input(await self._prompts.encode(call.prompt, own))
            params = self._sampling_params(call, len(prompt["prompt_token_ids"]))
            lora = None
            if call.adapter is not None:
                lora = await stack.enter_async_context(self._adapters.hold(call.adapter))
            outputs = Outputs(emit, settle=lambda: usage.fill(tally))
            try:
                await self._run(call.request_id, prompt, params, lora, outputs)
            except (EngineDeadError, EngineGenerateError) as error:
                raise EngineFailed("the engine of this replica failed") from error
            except GracefulHTTPError as error:
                raise Overloaded(f"the queue of this replica is full: {error}") from None
            except VLLMClientError as error:
                raise InvalidRequest(str(error)) from None
            finally:
                usage.fill(tally)

    async def _run(
        self,
        request_id: str,
        prompt: Any,
        params: SamplingParams,
        lora: LoRARequest | None,
        outputs: Outputs,
    ) -> None:
        """Does what `AsyncLLM.generate` does, without waking a task for every token."""
        # Cancelled in here, or refused, it leaves nothing behind (patches/admission.py).
        collector = await self._llm.add_request(request_id, prompt, params, lora_request=lora)
        outputs.attach(collector)
        try:
            await outputs.finished
        except BaseException:
            await self._abort(collector.request_id)
            raise

    async def _abort(self, internal_id: str) -> None:
        """Abort a request; does nothing if it has ended or the engine is dead."""
        if not self._llm.errored:
            await self._llm.abort(internal_id, internal=True)

    async def _prompt_with_images(self, call: CompletionCall) -> Any:
        if self._images is None:
            raise InvalidField(f"model '{call.model}' takes no images", param="images")
        images = await self._images.load_all([ref.url for ref in call.images], "images")
        return await self._image_prompts.render(call.prompt, images, call.images)

    def _sampling_params(self, call: CompletionCall, prompt_tokens: int) -> SamplingParams:
        given: Sampling = call.sampling
        limit = completion_limit(
            prompt_tokens,
            given.max_tokens,
            room=self.max_model_len - prompt_tokens,
            model=call.model,
            context=f"{self.max_model_len} tokens, prompt and completion together",
            param="model_parameters.max_tokens",
        )
        return SamplingParams(
            temperature=given.temperature,
            max_tokens=limit,
            stop=list(given.stop) or None,
            top_p=1.0 if given.top_p is None else given.top_p,
            top_k=0 if given.top_k is None else given.top_k,
            frequency_penalty=given.frequency_penalty or 0.0,
            presence_penalty=given.presence_penalty or 0.0,
            output_kind=(RequestOutputKind.DELTA if call.stream else RequestOutputKind.FINAL_ONLY),
        )

    def _begin(self, call: Call, body: bytes, tally: Tally) -> CallUsage:
        """Count what the current task's requests use, and let them take turns."""
        usage = self._usage.begin()
        tally.count = partial(usage.fill, tally)
        self._turns.begin(call.standing, len(body), usage.waits)
        return usage

    # OpenAI

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """See `Engine.http`."""
        assert self._app is not None
        if self._prompts is not None:
            self._prompts.check(call.prompt_format or AS_THE_BASE)
        self._salts.enter(call.cache_space)
        prepared = await self._preparation.prepare(call, body, reply, self._app.check)
        if prepared is None:
            return
        usage = self._begin(call, body, tally)
        self._shares.begin()
        async with AsyncExitStack() as stack:
            stack.enter_context(self._calls.run(call, body, usage))
            images = await load_taken(prepared.urls, call.model, call.path, self._images)
            tally.images = len(images)
            if images or call.path in AUDIO:
                stack.enter_context(self._media.sent_again_after_failure())
            lora = None
            if call.adapter is not None and call.path not in WITHOUT_ADAPTER:
                lora = await stack.enter_async_context(self._adapters.hold(call.adapter))
            checked = Checked(constrained=prepared.constrained)
            await self._app.run(call, prepared.body, reply, tally, usage, lora, images, checked)

    # adapters

    async def _load_adapter(self, ref: AdapterRef) -> LoRARequest:
        """Check an adapter, then load it by `add_lora`, whose failure does the engine no harm."""
        assert self._spec.lora is not None
        with self._adapter_metrics.loading():
            path = await asyncio.to_thread(fetch_adapter, ref.path, ref.revision)
            await asyncio.to_thread(
                check_adapter,
                path,
                base_path=local_checkpoint(self._spec.weights, self._spec.revision),
                base_names=self._spec.base_names,
                max_rank=self._spec.lora.max_rank,
            )
            number = next(self._lora_numbers)
            # The name is part of vLLM's prefix cache key; with the number in it, a new version of
            # an adapter does not reuse blocks that the old one computed.
            request = LoRARequest(
                lora_name=f"{ref.id}#{number}", lora_int_id=number, lora_path=path
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
        waiting = self._stats.waiting + self._turns.waiting
        return EngineLoad(self._stats.running, waiting, self._adapters.held)

    async def check(self) -> None:
        """See `Engine.check`."""
        if self._llm.errored:
            raise EngineFailed("the engine core is dead")
        if not self._preparation.alive:
            raise EngineFailed("the process that prepares requests is dead")

    def steps(self) -> int:
        """See `Engine.steps`."""
        return self._stats.steps

    def held(self) -> int:
        """See `Engine.held`."""
        return int(self._llm.get_num_unfinished_requests())

    async def prove(self) -> None:
        """See `Engine.prove`."""
        await self._run_own(SamplingParams(max_tokens=1))

    async def _warm_up(self) -> None:
        """Run a request that samples in every way, so that no caller's request, and all others
        with it, wait for what vLLM compiles or loads when it is first used."""
        await self._run_own(
            SamplingParams(max_tokens=2, top_k=5, top_p=0.9, logprobs=1, prompt_logprobs=1)
        )

    async def _run_own(self, params: SamplingParams) -> None:
        """Run a request of ours; a model that continues no text does what it is for."""
        prompt: Any
        prompt, name = tokens_input([0, 0]), f"own-{next(self._own_numbers)}"
        if self._spec.task == "transcribe":
            assert self._app is not None
            prompt, params = await self._app.silence(), SamplingParams(max_tokens=1)
        elif self._spec.task != "generate":
            pooling_params = PoolingParams(task=VLLM_TASKS[self._spec.task])
            async for _ in self._llm.encode(prompt, pooling_params, name):
                pass
            return
        params.output_kind = RequestOutputKind.FINAL_ONLY
        outputs = Outputs(lambda chunk: None, settle=lambda: None)
        await self._run(name, prompt, params, None, outputs)

    def suspects(self) -> Sequence[Suspect]:
        """See `Engine.suspects`."""
        return self._calls.look()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._preparation.close()
        await asyncio.to_thread(self._llm.shutdown)


def _check_task(spec: EngineSpec, tasks: tuple[str, ...], llm: AsyncLLM) -> None:
    """
    Raises:
        ValueError: the checkpoint is not for the model's task.
    """
    if spec.task == "transcribe":
        audio.check_packages()
    if spec.task in ("transcribe", "generate") and VLLM_TASKS[spec.task] not in tasks:
        raise ValueError(
            f"model '{spec.id}': task: vLLM runs this model for {', '.join(tasks)}, and not for "
            f"{VLLM_TASKS[spec.task]}"
        )
    if spec.task == "embed" and "embed" not in tasks:
        raise ValueError(
            f"model '{spec.id}': task: vLLM runs this model for {', '.join(tasks)}, and not for "
            "embeddings"
        )
    if spec.task == "score" and not pooling.is_cross_encoder(tasks, llm.model_config):
        raise ValueError(
            f"model '{spec.id}': task: vLLM runs this model for {', '.join(tasks)}, and not as a "
            "cross-encoder, which is a classifier with one label"
        )
