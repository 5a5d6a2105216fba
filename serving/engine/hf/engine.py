"""transformers as an engine, for models that vLLM cannot run: MPT and encoder-decoders such as T5.

The model runs in a thread of its own (`batch.py`); this module starts it and checks requests.
Weights are read from safetensors unless `pickle_weights` is set, and a checkpoint's own code is
never run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from prometheus_client import REGISTRY, CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
)

from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.fair_queue import FairQueue
from serving.engine.hf.batch import Batcher, Limits
from serving.engine.hf.openai_app import OpenAIEndpoints
from serving.engine.hf.request import BatchedRequest
from serving.engine.hf.rows import DecoderRows, EncoderDecoderRows, Rows
from serving.engine.hf.sampling import Params
from serving.engine.hf.text import Detokenizers
from serving.engine.interface import Emit, Engine, EngineLoad, Reply, Suspect, Tally
from serving.engine.prompt_size import completion_limit
from serving.engine.prompts import Prompts
from serving.engine.queue_limits import QueueLimits
from serving.engine.suspects import RunningCalls
from serving.errors import EngineFailed, InvalidField
from serving.observability.engine_metrics import BatchMetrics
from serving.wire.messages import AdapterRef, CompletionCall, HttpCall, Sampling, Standing

# The caches' share of the GPU memory that the weights leave; the rest is for a step's own tensors.
CACHE_SHARE = 0.7


class Arguments(BaseModel):
    """The `engine_args` of this engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_batch_size: Annotated[int, Field(ge=1)] = Field(
        default=32, description="requests that run at once"
    )
    max_waiting: Annotated[int, Field(ge=0)] = Field(
        default=2048, description="requests in the queue; more are refused with 503"
    )
    max_prefill_tokens: Annotated[int, Field(ge=1)] = Field(
        default=4096, description="tokens of the prompts that are run together, padding included"
    )
    max_cache_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="tokens in the caches, padding included; default: what fits the GPU's memory, "
        "or without a GPU the most that `max_batch_size` requests can need",
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="CPU threads of the model; default: PyTorch's choice"
    )
    pickle_weights: bool = Field(
        default=False, description="also load a checkpoint that has no safetensors"
    )


class HfEngine(Engine):
    """One model of transformers. Make it with `start`.

    `max_model_len` is `context`. For a decoder-only model it bounds prompt and completion
    together; for an encoder-decoder, whose prompt and completion are sequences of their own, it
    bounds each of them.
    """

    def __init__(
        self,
        spec: EngineSpec,
        prompts: Prompts,
        detokenizers: Detokenizers,
        batcher: Batcher,
        *,
        encoder_decoder: bool,
        turns: QueueLimits,
    ) -> None:
        self.max_model_len = spec.context
        self._spec = spec
        self._prompts = prompts
        self._detokenizers = detokenizers
        self._batcher = batcher
        self._encoder_decoder = encoder_decoder
        self._turns = turns
        self._calls: RunningCalls[Tally] = RunningCalls(
            lambda tally: [place for each, place in batcher.charges if each is tally]
        )
        self._openai = OpenAIEndpoints(
            prompts, self.complete, context=spec.context, prompt_chars=prompts.size.most
        )

    @classmethod
    async def start(
        cls, spec: EngineSpec, images: ImageLimits, registry: CollectorRegistry = REGISTRY
    ) -> HfEngine:
        """Load the model; takes seconds to minutes. It takes no images.

        Raises:
            ValueError: the spec asks for something that this engine or the model lacks.
        """
        arguments = _arguments(spec)
        model, tokenizer = await asyncio.to_thread(_load, spec, arguments)
        template = spec.chat_template
        if template is None and tokenizer.chat_template is not None:
            template = tokenizer.get_chat_template()
        prompts = Prompts(tokenizer, spec.prompt_style, template, spec.context)
        encoder_decoder = bool(model.config.is_encoder_decoder)
        generation: GenerationConfig = model.generation_config
        pad_id = tokenizer.pad_token_id or 0  # masked: any token would do
        rows: Rows = (
            EncoderDecoderRows(model, pad_id, _decoder_start(model))
            if encoder_decoder
            else DecoderRows(model, pad_id)
        )
        limits = await asyncio.to_thread(_limits, spec, arguments, rows, model.device)
        turns = QueueLimits()
        queue = FairQueue(turns.prompt_weight, turns.completion_weight)
        ends = _ends(generation, tokenizer)
        batcher = Batcher(rows, ends, limits, BatchMetrics(registry), queue)
        texts = Detokenizers(tokenizer)
        return cls(spec, prompts, texts, batcher, encoder_decoder=encoder_decoder, turns=turns)

    # Create Completion

    async def generate(self, call: CompletionCall, emit: Emit, tally: Tally) -> None:
        """See `Engine.generate`."""
        self._refuse_adapter(call.adapter)
        if call.images:
            raise InvalidField(f"model '{call.model}' takes no images", param="images")
        prompt = await self._prompts.encode(call.prompt)
        with self._calls.run(call, b"", tally):
            await self.complete(
                prompt,
                call.sampling,
                emit,
                tally,
                model=call.model,
                stream=call.stream,
                limit_name="model_parameters.max_tokens",
                standing=call.standing,
            )

    async def complete(
        self,
        prompt: list[int],
        sampling: Sampling,
        emit: Emit,
        tally: Tally,
        *,
        model: str,
        stream: bool,
        limit_name: str,
        standing: Standing,
    ) -> None:
        """Generate from `prompt`; `limit_name` is what the caller calls `max_tokens`.

        Raises: what `Engine.generate` does.
        """
        params = self._params(sampling, len(prompt), model, limit_name)
        # An encoder-decoder's completion continues nothing: it is a text of its own.
        detokenizer = self._detokenizers.after([] if self._encoder_decoder else prompt)
        request = BatchedRequest(
            prompt,
            params,
            detokenizer,
            emit,
            tally,
            stream=stream,
            flow=self._turns.flow_of(standing),
            weight=standing.weight,
        )
        await self._batcher.run(request)

    def _params(self, given: Sampling, prompt_tokens: int, model: str, limit_name: str) -> Params:
        context = self.max_model_len
        if self._encoder_decoder:
            room = context if prompt_tokens <= context else 0
            said = f"{context} tokens for the prompt and as many for the completion"
        else:
            room = context - prompt_tokens
            said = f"{context} tokens, prompt and completion together"
        limit = completion_limit(
            prompt_tokens, given.max_tokens, room=room, model=model, context=said, param=limit_name
        )
        return Params(
            max_tokens=limit,
            temperature=given.temperature,
            top_k=given.top_k or 0,
            top_p=1.0 if given.top_p is None else given.top_p,
            frequency_penalty=given.frequency_penalty or 0.0,
            presence_penalty=given.presence_penalty or 0.0,
            stop=given.stop,
        )

    def _refuse_adapter(self, adapter: AdapterRef | None) -> None:
        if adapter is not None:
            raise InvalidField(
                f"adapter '{adapter.id}': model '{self._spec.id}' runs on an engine without "
                "adapters",
                param="model",
            )

    # OpenAI

    async def http(self, call: HttpCall, body: bytes, reply: Reply, tally: Tally) -> None:
        """See `Engine.http`."""
        self._refuse_adapter(call.adapter)
        with self._calls.run(call, body, tally):
            await self._openai.run(call, body, reply, tally)

    # state

    def load(self) -> EngineLoad:
        """See `Engine.load`."""
        return EngineLoad(self._batcher.running, self._batcher.waiting)

    async def check(self) -> None:
        """See `Engine.check`."""
        if self._batcher.failed:
            raise EngineFailed("the model failed")

    def suspects(self) -> Sequence[Suspect]:
        """See `Engine.suspects`."""
        return self._calls.look()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._batcher.close()


def _arguments(spec: EngineSpec) -> Arguments:
    """The checked `engine_args`.

    Raises:
        ValueError: they are not valid, or the spec asks for something that this engine lacks.
    """
    if spec.gpus_per_replica > 1 or spec.tensor_parallel > 1:
        raise ValueError(f"model '{spec.id}': the transformers engine runs on one GPU")
    if spec.vision:
        raise ValueError(f"model '{spec.id}': the transformers engine takes no images")
    try:
        return Arguments.model_validate(spec.engine_args)
    except ValidationError as error:
        known = ", ".join(Arguments.model_fields)
        raise ValueError(
            f"model '{spec.id}': engine_args of the transformers engine ({known}): {error}"
        ) from None


def _load(spec: EngineSpec, arguments: Arguments) -> tuple[Any, Any]:
    """The model, ready on its device, and its tokenizer."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    source = {"revision": spec.revision, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(spec.weights, **source)
    # T5's positions are relative and have no end; a decoder-only model's may have one.
    for name in () if config.is_encoder_decoder else ("max_seq_len", "max_position_embeddings"):
        longest = getattr(config, name, None)
        if longest is not None and spec.context > longest:
            raise ValueError(
                f"model '{spec.id}': context {spec.context} is above the checkpoint's {name}, "
                f"{longest}"
            )
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = loader.from_pretrained(
        spec.weights,
        dtype=spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype),
        # None tries safetensors first.
        use_safetensors=None if arguments.pickle_weights else True,
        **source,
    )
    tokenizer = AutoTokenizer.from_pretrained(spec.weights, **source)
    on_gpu = spec.gpus_per_replica > 0 and torch.cuda.is_available()
    return model.to("cuda" if on_gpu else "cpu").eval(), tokenizer


def _limits(spec: EngineSpec, arguments: Arguments, rows: Rows, device: torch.device) -> Limits:
    """The batch's limits; on a GPU its free memory bounds the caches.

    Raises:
        ValueError: not even one request as long as the context fits.
    """
    longest = (1, spec.context - 1) if isinstance(rows, DecoderRows) else (spec.context,) * 2
    one = rows.cells([longest])
    cells = arguments.max_cache_tokens
    if cells is None:
        cells = rows.cells([longest] * arguments.max_batch_size)
        if device.type == "cuda":
            with torch.inference_mode():
                size = rows.cell_bytes()
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(device)
            cells = min(cells, int(free * CACHE_SHARE) // size)
    if cells < one:
        raise ValueError(
            f"model '{spec.id}': there is memory for {cells} tokens in the caches; one request of "
            f"context {spec.context} needs {one}"
        )
    return Limits(
        arguments.max_batch_size, arguments.max_waiting, arguments.max_prefill_tokens, cells
    )


def _ends(generation: GenerationConfig, tokenizer: Any) -> frozenset[int]:
    """Token IDs that end a completion: the checkpoint's generation settings name one or several."""
    found = generation.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])


def _decoder_start(model: Any) -> int:
    start = model.generation_config.decoder_start_token_id
    if start is None:
        start = model.config.decoder_start_token_id
    if start is None:
        raise ValueError("the checkpoint does not say its decoder's start token")
    return int(start)
