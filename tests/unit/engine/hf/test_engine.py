"""The transformers engine on tiny models, against `generate` of transformers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from serving.engine.interface import Tally
from serving.errors import ContextLengthExceeded, InvalidField
from serving.wire.messages import AdapterRef, CompletionCall, ImageRef, Sampling
from tests.unit.engine.conftest import HALF, Completion, Reference, Start, call_of
from tests.unit.engine.hf.prompts import MODELS, PROMPTS


@pytest.mark.parametrize("name", MODELS)
async def test_a_batch_says_what_each_says_alone(
    start: Start, reference: Callable[[str], Reference], name: str
) -> None:
    engine = await start(name, max_batch_size=5)
    alone = reference(name)
    found = await asyncio.gather(
        *(Completion().of(engine, prompt, stream=bool(at % 2)) for at, prompt in enumerate(PROMPTS))
    )
    for prompt, completion in zip(PROMPTS, found, strict=True):
        tokens = alone.tokens(prompt, 40)
        assert completion.text.rstrip(HALF) == alone.text(prompt, 40), prompt
        assert completion.tally.completion_tokens == len(tokens)
        assert completion.tally.prompt_tokens == len(alone.tokenizer.encode(prompt))
        ended = tokens[-1] == alone.tokenizer.eos_token_id
        assert completion.last.finish_reason == ("stop" if ended else "length")
    assert engine.load().running == engine.load().waiting == 0


@pytest.mark.parametrize("name", ["t5", "mpt"])
async def test_requests_join_and_leave_a_running_batch(
    start: Start, reference: Callable[[str], Reference], name: str
) -> None:
    """Each starts when the one before has said a few words, and they end at different times."""
    engine = await start(name, max_batch_size=3)
    alone = reference(name)
    lengths = [60, 5, 30, 1, 12, 40, 2, 25]
    chunks = [Completion() for _ in PROMPTS]
    begun = [asyncio.Event() for _ in range(len(PROMPTS) + 1)]
    begun[0].set()

    async def one(at: int) -> None:
        await begun[at].wait()

        def emit(chunk: Any) -> None:
            chunks[at].chunks.append(chunk)
            if len(chunks[at].chunks) >= 3 or chunk.finish_reason:
                begun[at + 1].set()

        await engine.generate(call_of(PROMPTS[at], max_tokens=lengths[at]), emit, Tally())

    await asyncio.gather(*(one(at) for at in range(len(PROMPTS))))
    for prompt, length, completion in zip(PROMPTS, lengths, chunks, strict=True):
        assert completion.text.rstrip(HALF) == alone.text(prompt, length), prompt


@pytest.mark.parametrize("name", ["t5", "mpt"])
async def test_in_whatever_order_they_come_and_go(
    start: Start, reference: Callable[[str], Reference], name: str
) -> None:
    """Requests of any length at any time, some of which are cancelled at any time."""
    engine = await start(name, max_batch_size=5, max_prefill_tokens=100)
    alone = reference(name)
    rng = random.Random(7)
    ended = 0

    async def one(prompt: str, length: int, at_s: float, cancelled_s: float | None) -> None:
        nonlocal ended
        await asyncio.sleep(at_s)
        running = asyncio.create_task(Completion().of(engine, prompt, max_tokens=length))
        if cancelled_s is not None:
            await asyncio.sleep(cancelled_s)
            if running.cancel():
                return
        assert (await running).text.rstrip(HALF) == alone.text(prompt, length), prompt
        ended += 1

    await asyncio.gather(
        *(
            one(
                " ".join(rng.choices(PROMPTS[2].split(), k=rng.choice((1, 3, 20, 50)))),
                rng.choice((1, 2, 7, 30, 80)),
                rng.random() * 0.3,
                rng.random() * 0.1 if rng.random() < 0.25 else None,
            )
            for _ in range(40)
        )
    )
    assert ended >= 20
    assert (engine.load().running, engine.load().waiting) == (0, 0)


@pytest.mark.parametrize("name", ["t5", "llama"])
async def test_a_stream_comes_token_by_token(start: Start, name: str) -> None:
    engine = await start(name)
    streamed = await Completion().of(engine, PROMPTS[0])
    whole = await Completion().of(engine, PROMPTS[0], stream=False)
    assert len(whole.chunks) == 1
    assert streamed.text == whole.text
    assert len(streamed.chunks) > streamed.tally.completion_tokens * 0.8
    assert all(chunk.finish_reason is None for chunk in streamed.chunks[:-1])
    assert streamed.tally.queue_s is not None
    assert streamed.tally.queue_s < 1


async def test_stop_sequences(start: Start, reference: Callable[[str], Reference]) -> None:
    engine = await start("t5")
    text = reference("t5").text(PROMPTS[0], 40)
    # Across a token's border, and one that never comes.
    stop = text[10:14]
    for stream in (True, False):
        found = await Completion().of(engine, PROMPTS[0], stream=stream, stop=("zzz", stop))
        assert found.text == text[: text.index(stop)]
        assert found.last.finish_reason == "stop"
        assert found.tally.completion_tokens < 40


def penalised(reference: Reference, prompt: str, frequency: float, presence: float) -> list[int]:
    """Greedy with OpenAI's penalties by definition, without a cache."""
    prompt_ids = reference.tokenizer.encode(prompt)
    said: list[int] = []
    for _ in range(24):
        if reference.encoder_decoder:
            inputs = {"input_ids": prompt_ids, "decoder_input_ids": [0, *said]}
        else:
            inputs = {"input_ids": [*prompt_ids, *said]}
        tensors = {key: torch.tensor([ids]) for key, ids in inputs.items()}
        with torch.no_grad():
            logits = reference.model(**tensors).logits[0, -1]
        for token, count in Counter(said).items():
            logits[token] -= frequency * count + presence
        said.append(int(logits.argmax()))
    return said


@pytest.mark.parametrize("name", ["t5", "mpt"])
async def test_penalties(start: Start, reference: Callable[[str], Reference], name: str) -> None:
    engine = await start(name)
    values = ((1.5, 0.0), (0.0, 2.0), (-2.0, 0.0), (0.7, 0.9), (0.0, 0.0))
    found = await asyncio.gather(
        *(
            Completion().of(
                engine, "way", max_tokens=24, frequency_penalty=one, presence_penalty=other
            )
            for one, other in values
        )
    )
    texts = [
        reference(name).decode("way", penalised(reference(name), "way", *pair)).rstrip(HALF)
        for pair in values
    ]
    assert [completion.text.rstrip(HALF) for completion in found] == texts
    assert len(set(texts)) > 2


async def test_a_decoder_only_context_is_shared(start: Start) -> None:
    engine = await start("mpt", spec={"context": 32})
    with pytest.raises(ContextLengthExceeded) as error:
        await Completion().of(engine, PROMPTS[4])
    assert error.value.param == "prompt"
    with pytest.raises(ContextLengthExceeded) as error:
        await Completion().of(engine, "they said", max_tokens=30)
    assert error.value.param == "model_parameters.max_tokens"
    found = await Completion().of(engine, "they said", max_tokens=None)
    assert found.tally.prompt_tokens + found.tally.completion_tokens == 32
    with pytest.raises(InvalidField):  # this tokenizer adds nothing to an empty text
        engine._params(Sampling(), 0, "m", "max_tokens")


async def test_an_encoder_decoder_has_two_contexts(
    start: Start, reference: Callable[[str], Reference]
) -> None:
    engine = await start("t5", spec={"context": 32})
    prompt = "the way " * 15 + "of"  # 32 tokens with the end token
    found = await Completion().of(engine, prompt, max_tokens=None)
    assert (found.tally.prompt_tokens, found.tally.completion_tokens) == (32, 32)
    assert found.text == reference("t5").text(prompt, 32)
    with pytest.raises(ContextLengthExceeded):
        await Completion().of(engine, prompt + " it")
    with pytest.raises(ContextLengthExceeded):
        await Completion().of(engine, "way", max_tokens=33)


async def test_adapters_and_images_are_refused(start: Start) -> None:
    engine = await start("t5")
    sampling = Sampling()
    for fields in (
        {"adapter": AdapterRef("t5.pirate", "/nowhere")},
        {"images": (ImageRef("https://example.com/a.png"),)},
    ):
        call = CompletionCall("r", "m", "hi", True, sampling, "m", **fields)  # type: ignore[arg-type]
        with pytest.raises(InvalidField):
            await engine.generate(call, lambda chunk: None, Tally())


async def test_a_chat_prompt_goes_through_the_template(
    start: Start, reference: Callable[[str], Reference]
) -> None:
    template = "{{ bos_token }}{% for m in messages %}Q: {{ m['content'] }}\nA:{% endfor %}"
    engine = await start("llama", spec={"prompt_style": "chat", "chat_template": template})
    found = await Completion().of(engine, "Once upon a time", max_tokens=12)
    tokenizer = reference("llama").tokenizer
    prompt = "Q: Once upon a time\nA:"
    assert found.tally.prompt_tokens == len(tokenizer.encode(prompt))
    assert found.text == reference("llama").text(prompt, 12)


async def test_metrics(start: Start) -> None:
    registry = CollectorRegistry()
    engine = await start("t5", registry=registry)
    await asyncio.gather(*(Completion().of(engine, "way", max_tokens=10) for _ in range(4)))

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0

    assert value("serving_engine_requests_running") == 0
    assert value("serving_engine_requests_waiting") == 0
    assert value("serving_engine_tokens_total", kind="completion") == 40
    assert value("serving_engine_tokens_total", kind="prompt") == 8
    assert value("serving_engine_step_rows_count", phase="decode") < 40
    assert value("serving_engine_step_seconds_count", phase="prefill") >= 1


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"engine_args": {"max_batch": 3}}, "max_batch"),
        ({"engine_args": {"max_batch_size": 0}}, "max_batch_size"),
        ({"engine_args": {"max_cache_tokens": 100}}, "context 200 needs 200"),
        ({"context": 1000}, "max_seq_len"),
        ({"vision": True}, "images"),
        ({"prompt_style": "chat"}, "template"),
        ({"tensor_parallel": 2}, "one GPU"),
        ({"gpus": 2}, "one GPU"),
    ],
)
async def test_what_it_cannot_do_is_said_at_the_start(
    start: Start, spec: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        await start("mpt", spec=spec)
