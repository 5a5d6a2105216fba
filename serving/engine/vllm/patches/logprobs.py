"""The limits on the log probabilities of prompts. Only tokens say how many there are, so they are
counted where vLLM processes the prompts of a call.

`tests/unit/engine/vllm/test_patches_logprobs.py` holds each assumption against the installed
version.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.input_processor import InputProcessor


class PromptLogprobs:
    """Refuses calls whose prompts would have more than `most` log probabilities together.

    A prompt's come in one step, and are in each of its choices. A stream has them in one event of
    each choice, which vLLM writes on the event loop: `streamed` of them at most.
    """

    def __init__(self, most: int, streamed: int) -> None:
        self._most = most
        self._streamed = streamed
        self._so_far: ContextVar[list[int] | None] = ContextVar("prompt_logprobs", default=None)

    def begin(self) -> None:
        """A call begins, which the current task, and those it starts, work on."""
        self._so_far.set([0])

    def install(self, processor: InputProcessor) -> None:
        """Have vLLM count them, in this process."""
        process = processor.process_inputs

        def process_and_count(name: str, prompt: Any, params: Any, *more: Any, **named: Any) -> Any:
            request = process(name, prompt, params, *more, **named)
            of_each = getattr(params, "prompt_logprobs", None)
            if of_each is not None and request.prompt_token_ids is not None:
                self._count(len(request.prompt_token_ids) * params.n, of_each, params.output_kind)
            return request

        processor.process_inputs = process_and_count

    def _count(self, tokens: int, of_each: int, kind: RequestOutputKind) -> None:
        so_far = self._so_far.get()
        if so_far is None:
            return  # a request of ours
        streamed = kind == RequestOutputKind.DELTA
        most = min(self._most, self._streamed) if streamed else self._most
        so_far[0] += tokens * (1 + of_each)
        if so_far[0] > most:
            taken = "are taken in a stream" if streamed else "are taken"
            raise VLLMValidationError(
                f"the prompts' tokens, with {of_each} log probabilities of each and its own, have "
                f"more than {most} of them in all choices; at most {most} {taken}",
                parameter="prompt_logprobs",
            )
