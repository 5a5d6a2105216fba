"""Tiny checkpoints, engines on them, and what `transformers` itself generates from them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from serving.catalogue.spec import EngineSpec, ImageLimits
from serving.engine.interface import Chunk, Tally
from serving.wire.messages import CompletionCall, Sampling
from tests.seq_shapes import write_mpt, write_t5

if TYPE_CHECKING:
    from serving.engine.hf.engine import HfEngine

TINY_LLAMA = Path(__file__).parents[3] / "local_models/weights/tiny-llama"
# Half a character at the end of a text is not sent; transformers writes U+FFFD.
HALF = "\ufffd"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name: an encoder-decoder, a model with ALiBi, and a trained one with rotary positions."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "t5": write_t5(folder / "t5"),
        "mpt": write_mpt(folder / "mpt"),
        "llama": TINY_LLAMA,
    }


class Reference:
    """`generate` of transformers, one prompt at a time, greedy."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        self.encoder_decoder = directory.name == "t5"
        loader: Any = AutoModelForSeq2SeqLM if self.encoder_decoder else AutoModelForCausalLM
        self.model = loader.from_pretrained(directory).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.text = cache(self._text)

    def tokens(self, prompt: str, max_tokens: int) -> list[int]:
        import torch

        ids = torch.tensor([self.tokenizer.encode(prompt)])
        found = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            use_cache=True,
        )[0].tolist()
        return found[1:] if self.encoder_decoder else found[ids.shape[1] :]

    def decode(self, prompt: str, tokens: Sequence[int]) -> str:
        """The text of a completion's tokens, decoded behind the prompt where it continues that."""
        if self.encoder_decoder:
            return str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        before = self.tokenizer.encode(prompt)
        whole = self.tokenizer.decode([*before, *tokens], skip_special_tokens=True)
        return str(whole[len(self.tokenizer.decode(before, skip_special_tokens=True)) :])

    def _text(self, prompt: str, max_tokens: int) -> str:
        return self.decode(prompt, self.tokens(prompt, max_tokens)).rstrip(HALF)


@pytest.fixture(scope="session")
def reference(checkpoints: dict[str, Path]) -> Callable[[str], Reference]:
    """`reference("t5")`."""
    return cache(lambda name: Reference(checkpoints[name]))


Start = Callable[..., Awaitable["HfEngine"]]


@pytest.fixture
async def start(checkpoints: dict[str, Path]) -> AsyncIterator[Start]:
    """`await start("t5", max_batch_size=4)`: an engine. The keywords are its `engine_args`, except
    `spec`, which has more fields of the spec, and `registry`."""
    from serving.engine.hf.engine import HfEngine

    engines: list[HfEngine] = []

    async def start_it(
        name: str,
        *,
        spec: dict[str, Any] | None = None,
        registry: CollectorRegistry | None = None,
        **arguments: Any,
    ) -> HfEngine:
        fields = {
            "id": name,
            "weights": str(checkpoints[name]),
            "context": 200,
            "runtime": "transformers",
            "dtype": "float32",
            "engine_args": {"threads": 1, **arguments},
        }
        engine = await HfEngine.start(
            EngineSpec.model_validate({**fields, **(spec or {})}),
            ImageLimits(),
            registry or CollectorRegistry(),
        )
        engines.append(engine)
        return engine

    yield start_it
    for engine in engines:
        await engine.close()


def gate(engine: HfEngine) -> threading.Semaphore:
    """Make each decode step of the engine wait for one release of the semaphore, so that a test
    knows what still runs, however fast the model and however slow the machine."""
    steps = threading.Semaphore(0)
    rows = engine._batcher._rows
    decode = rows.decode

    def gated(tokens: Sequence[int]) -> Any:
        steps.acquire(timeout=20)
        return decode(tokens)

    rows.decode = gated  # type: ignore[method-assign]
    return steps


OPEN = 100_000


def call_of(prompt: str, *, stream: bool = True, **sampling: Any) -> CompletionCall:
    """A greedy completion."""
    given = Sampling(**{"temperature": 0.0, "max_tokens": 40, **sampling})
    return CompletionCall("r", "m", prompt, stream, given, "m")


class Completion:
    """Collects what an engine emits for one call."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.tally = Tally()

    async def of(self, engine: HfEngine, prompt: str, **fields: Any) -> Completion:
        await engine.generate(call_of(prompt, **fields), self.chunks.append, self.tally)
        return self

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def last(self) -> Chunk:
        return self.chunks[-1]
