"""Logprobs of prompts, on an engine with LoRA, whatever else is in the same step.

Without `patch_prompt_logprobs` of `serving/engine/vllm/worker_patches.py`, such a request in a step
with another one kills the engine core. lm-eval's loglikelihood sends nothing else: `echo` with
`logprobs` and a completion of no or one token. No Ray: the engine server runs by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.catalogue.spec import EngineSpec
from serving.observability.logs import Log
from serving.wire.messages import AdapterRef
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import EngineLink, EngineServer, engine_link, engine_server
from tests.conftest import Eventually
from tests.live import BASE, HAIKU, PIRATE

PROMPTS = (
    "A robot may not injure another robot",
    "My name is",
    "Once upon a time there was",
    "The sky is blue because the light",
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine would keep what it compiles."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def engine(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    model = local_model(BASE)
    model["env"] |= {"TORCHINDUCTOR_CACHE_DIR": str(compiled)}
    spec = EngineSpec.model_validate(model)
    with engine_server(spec, tmp_path_factory.mktemp("logprobs")) as server:
        yield server


@pytest.fixture
async def link(engine: EngineServer, log: Log, eventually: Eventually) -> AsyncIterator[EngineLink]:
    async with engine_link(engine, log) as link:
        await eventually(lambda: link.up)
        yield link


@pytest.fixture(scope="module")
def reference() -> dict[str, list[float]]:
    """By prompt: the logprobs of its tokens after the first, from Hugging Face's own class."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = local_model(BASE)["weights"]
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    found = {}
    for prompt in PROMPTS:
        ids = torch.tensor(tokenizer.encode(prompt))
        with torch.inference_mode():
            scores = torch.log_softmax(model(ids[None]).logits[0, :-1], dim=-1)
        found[prompt] = scores.gather(1, ids[1:, None])[:, 0].tolist()
    return found


def adapter(name: str) -> AdapterRef:
    return AdapterRef(name, local_model(name)["weights"])


def of_echo(choice: Any, size: int) -> list[float]:
    """The logprobs of the prompt's tokens; the first has none."""
    first, *others = choice["logprobs"]["token_logprobs"]
    assert first is None
    return [float(logprob) for logprob in others[:size]]


def of_prompt(choice: Any) -> list[float]:
    first, *others = choice["prompt_logprobs"]
    assert first is None
    return [next(iter(token.values()))["logprob"] for token in others]


async def test_nothing_is_compiled_beside_other_requests(link: EngineLink, compiled: Path) -> None:
    """The model's `enforce_eager` says so. All requests of the engine would wait, up to 35 s."""
    for fields in ({"logprobs": 3}, {"prompt_logprobs": 1}, {"top_k": 3}, {"top_p": 0.5}):
        await link.post("/v1/completions", BASE, prompt="My name is", max_tokens=2, **fields)
    assert list(compiled.iterdir()) == []


async def test_several_prompts_in_one_request(
    link: EngineLink, reference: dict[str, list[float]]
) -> None:
    body = {"prompt": list(PROMPTS), "prompt_logprobs": 0, "max_tokens": 2}
    _, found = await link.post("/v1/completions", BASE, **body)
    for prompt, choice in zip(PROMPTS, found["choices"], strict=True):
        assert of_prompt(choice) == pytest.approx(reference[prompt], abs=1e-4)


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_echo_as_lm_eval_sends_it(
    link: EngineLink, reference: dict[str, list[float]], max_tokens: int
) -> None:
    async def one(prompt: str) -> Any:
        body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": max_tokens}
        _, found = await link.post("/v1/completions", BASE, **body, temperature=0)
        return found

    for prompt, found in zip(
        PROMPTS * 4, await asyncio.gather(*map(one, PROMPTS * 4)), strict=True
    ):
        expected = reference[prompt]
        assert of_echo(found["choices"][0], len(expected)) == pytest.approx(expected, abs=1e-4)


async def test_beside_adapters_and_running_requests(
    link: EngineLink, reference: dict[str, list[float]]
) -> None:
    """Each request's logprobs are those of its own adapter, or of none, as when it is alone."""

    async def one(prompt: str, name: str | None) -> list[float]:
        body = {"prompt": prompt, "prompt_logprobs": 0, "max_tokens": 1}
        chosen = adapter(name) if name else None
        _, found = await link.post("/v1/completions", name or BASE, chosen, **body)
        return of_prompt(found["choices"][0])

    asked = [(prompt, name) for name in (None, PIRATE, HAIKU) for prompt in PROMPTS]
    alone = [await one(*each) for each in asked]
    running = {"prompt": "Once", "max_tokens": 200, "ignore_eos": True}
    others = [asyncio.create_task(link.post("/v1/completions", BASE, **running)) for _ in range(3)]
    together = await asyncio.gather(*(one(*each) for each in asked * 3))
    await asyncio.gather(*others)
    for number, found in enumerate(together):
        assert found == pytest.approx(alone[number % len(asked)], abs=1e-4)
    for (prompt, name), found in zip(asked, alone, strict=True):
        assert (found == pytest.approx(reference[prompt], abs=1e-3)) == (name is None)


async def test_a_prompt_in_chunks(link: EngineLink) -> None:
    """Longer together than one step may be (`max_num_batched_tokens`), so that prompts are cut."""
    prompts = [f"{word} {'and on ' * 240}" for word in ("Far", "Near", "High", "Low", "In", "Out")]

    async def one(prompt: str) -> list[float]:
        body = {"prompt": prompt, "prompt_logprobs": 0, "max_tokens": 1}
        _, found = await link.post("/v1/completions", BASE, **body)
        return of_prompt(found["choices"][0])

    alone = [await one(prompt) for prompt in prompts]
    together = await asyncio.gather(*map(one, prompts * 2))
    for number, found in enumerate(together):
        assert found == pytest.approx(alone[number % len(prompts)], abs=1e-4)
