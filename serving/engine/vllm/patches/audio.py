"""What is borrowed of vLLM's endpoints for speech.

vLLM's limits are environment variables, which its refusals tell the caller to set. Here they are
those of `BodyLimits`, and so are the words.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI
from vllm.config.speech_to_text import SpeechToTextParams
from vllm.entrypoints.speech_to_text.base import serving as speech
from vllm.entrypoints.speech_to_text.base.utils import read_upload_with_limit
from vllm.entrypoints.speech_to_text.transcription import api_router as transcription
from vllm.entrypoints.speech_to_text.translation import api_router as translation
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import audio as media
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.utils.import_utils import PlaceholderModule
from vllm.v1.engine.async_llm import AsyncLLM

from serving.engine.bodies.limits import BodyLimits

_MIB = 1024 * 1024
# How vLLM names its limits in what it says.
_LIMITS = "VLLM_MAX_AUDIO"


def check_packages() -> None:
    """
    Raises:
        ValueError: a package is missing that vLLM reads recordings with. vLLM itself would tell
            callers that their files are invalid.
    """
    for name in ("av", "soundfile"):
        if isinstance(getattr(media, name), PlaceholderModule):
            raise ValueError(f"to read recordings the package `{name}` has to be installed")


def limit(app: FastAPI, limits: BodyLimits) -> None:
    """Let vLLM's handlers read no more than `limits` allow, and say so in our words."""
    read = partial(read_upload_with_limit, max_size_mb=limits.audio_bytes / _MIB)
    for router in (transcription, translation):
        router.read_upload_with_limit = read  # type: ignore[assignment]
    for logger in (media.logger, speech.logger):
        if not any(isinstance(one, _Once) for one in logger.filters):
            logger.addFilter(_Once())
    for handler in _handlers(app):
        handler.max_audio_decode_duration_s = limits.audio_seconds
        if (tokenizer := getattr(handler, "tokenizer", None)) is not None:
            handler._get_verbose_segments = partial(
                _segments, handler._get_verbose_segments, tokenizer.eos_token_id
            )
        handler._decode_and_chunk_speech_async = partial(
            _decode, handler._decode_and_chunk_speech_async, limits.audio_seconds
        )


class _Once(logging.Filter):
    """Passes the first record of each kind. Of every recording vLLM writes that it has no
    torchcodec, which it can do without, and which language it found."""

    def __init__(self) -> None:
        super().__init__()
        self._said = set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """True for what has not been said yet."""
        if (said := str(record.msg)) in self._said:
            return False
        self._said.add(said)
        return True


async def _decode(decode: Any, seconds: int, data: bytes) -> tuple[list[Any], float]:
    try:
        chunks, duration = await decode(data)
    except ValueError as error:
        if _LIMITS not in str(error):
            raise
        raise _refusal(f"is too long; at most {seconds} seconds are taken") from None
    if not duration:
        raise _refusal("has no sound in it")
    return chunks, duration


def _segments(segments: Any, end: int, *, tokens: tuple[int, ...], **kwargs: Any) -> list[Any]:
    """Of a part in which nothing is said vLLM looks for the last token but one, which is an
    IndexError and a 500."""
    return [] if tokens in ((), (end,)) else list(segments(tokens=tokens, **kwargs))


def _refusal(why: str) -> VLLMValidationError:
    return VLLMValidationError(f"'file': {why}", parameter="file")


async def silence(app: FastAPI, llm: AsyncLLM) -> Any:
    """A moment of silence as the engine's input: a request of our own."""
    handler = next(_handlers(app))
    rate = int(handler.asr_config.sample_rate)
    params = SpeechToTextParams(
        audio=np.zeros(rate // 10, dtype=np.float32),
        stt_config=handler.asr_config,
        model_config=llm.model_config,
        language="en",
        task_type="transcribe",
        request_prompt="",
        to_language=None,
        hotwords=None,
    )
    prompt = parse_model_prompt(llm.model_config, handler.model_cls.get_generation_prompt(params))
    (found,) = await llm.renderer.render_cmpl_async([prompt])
    return found


def _handlers(app: FastAPI) -> Iterator[Any]:
    for task in ("transcription", "translation"):
        if (handler := getattr(app.state, f"openai_serving_{task}", None)) is not None:
            yield handler
