"""What `patches/audio.py` assumes of vLLM, against the installed version."""

from __future__ import annotations

import inspect
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from vllm.entrypoints.speech_to_text import factories
from vllm.entrypoints.speech_to_text.base import serving as speech
from vllm.entrypoints.speech_to_text.base.serving import SpeechToTextBaseServing
from vllm.entrypoints.speech_to_text.transcription import api_router as transcription
from vllm.entrypoints.speech_to_text.transcription.protocol import TranscriptionRequest
from vllm.entrypoints.speech_to_text.translation import api_router as translation
from vllm.entrypoints.speech_to_text.translation.protocol import TranslationRequest
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import audio as media
from vllm.utils.import_utils import PlaceholderModule

from serving.api.audio import PATHS, AudioRequest
from serving.engine.bodies.limits import BodyLimits
from serving.engine.vllm.patches import audio


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    for router in (transcription, translation):
        monkeypatch.setattr(router, "read_upload_with_limit", router.read_upload_with_limit)
    return FastAPI()


def handler(decode: Any) -> Any:
    return SimpleNamespace(_decode_and_chunk_speech_async=decode, max_audio_decode_duration_s=600)


def test_where_the_handlers_are() -> None:
    source = inspect.getsource(factories.init_speech_to_text_state)
    for task in ("transcription", "translation"):
        assert f"state.openai_serving_{task} = " in source
    routes = {
        route.path for router in (transcription, translation) for route in router.router.routes
    }  # type: ignore[attr-defined]
    assert routes == PATHS


def test_how_a_handler_reads_a_recording() -> None:
    source = inspect.getsource(SpeechToTextBaseServing)
    assert "await self._decode_and_chunk_speech_async(audio_data)" in source
    assert "max_duration_s=self.max_audio_decode_duration_s" in source
    for router in (transcription, translation):
        assert "await read_upload_with_limit(request.file)" in inspect.getsource(router)


def test_every_limit_is_named_as_it_is_looked_for() -> None:
    limits = [line for line in inspect.getsource(media).splitlines() if "VLLM_MAX_" in line]
    assert limits
    assert all(audio._LIMITS in line for line in limits)


def test_both_endpoints_take_every_field() -> None:
    """Times there are of segments alone, which is what translations have without being asked."""
    ours = AudioRequest.model_fields.keys()
    assert ours <= TranscriptionRequest.model_fields.keys()
    assert ours - {"timestamp_granularities"} <= TranslationRequest.model_fields.keys()


async def test_a_refusal_says_our_limit(app: FastAPI) -> None:
    async def too_long(data: bytes) -> Any:
        raise ValueError("too long. Set VLLM_MAX_AUDIO_DECODE_DURATION_S to increase this limit.")

    async def broken(data: bytes) -> Any:
        raise ValueError("Invalid or unsupported audio file.")

    async def silent(data: bytes) -> Any:
        return [[]], 0.0

    async def fine(data: bytes) -> Any:
        return [data], 1.0

    async def told(decode: Any) -> str:
        app.state.openai_serving_transcription = found = handler(decode)
        audio.limit(app, BodyLimits(audio_seconds=7))
        assert found.max_audio_decode_duration_s == 7
        with pytest.raises((ValueError, VLLMValidationError)) as caught:
            await found._decode_and_chunk_speech_async(b"x")
        return str(caught.value)

    assert "'file': is too long; at most 7 seconds are taken" in await told(too_long)
    assert await told(broken) == "Invalid or unsupported audio file."
    assert "'file': has no sound in it" in await told(silent)
    app.state.openai_serving_transcription = found = handler(fine)
    audio.limit(app, BodyLimits())
    assert await found._decode_and_chunk_speech_async(b"x") == ([b"x"], 1.0)


async def test_a_file_is_read_up_to_our_limit(app: FastAPI) -> None:
    audio.limit(app, BodyLimits(audio_bytes=3))

    class File:
        size = None

        def __init__(self, data: bytes) -> None:
            self.data = data

        async def read(self, size: int) -> bytes:
            data, self.data = self.data, b""
            return data

    for router in (transcription, translation):
        assert await router.read_upload_with_limit(File(b"abc")) == b"abc"  # type: ignore[arg-type]
        with pytest.raises(VLLMValidationError):
            await router.read_upload_with_limit(File(b"abcd"))  # type: ignore[arg-type]


def test_a_warning_that_comes_with_every_recording_is_written_once(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = inspect.getsource(media.load_audio)
    assert '"torchcodec unavailable (%r); falling back to soundfile/PyAV.", exc' in source
    written: list[str] = []
    assert "logger.info(\"Auto-detected language: '%s'\", lang)" in inspect.getsource(
        SpeechToTextBaseServing
    )
    for logger in (media.logger, speech.logger):
        monkeypatch.setattr(logger, "filters", [])
    for _ in range(2):
        audio.limit(app, BodyLimits())
    ((once,), (_,)) = media.logger.filters, speech.logger.filters
    for message in ("no %r", "no %r", "other %r"):
        record = logging.LogRecord("n", logging.WARNING, "p", 1, message, ("x",), None)
        if once.filter(record):  # type: ignore[union-attr]
            written.append(record.getMessage())
    assert written == ["no 'x'", "other 'x'"]


def test_a_package_that_is_missing_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("av", "soundfile"):
        monkeypatch.setattr(media, name, SimpleNamespace())
    audio.check_packages()
    monkeypatch.setattr(media, "av", PlaceholderModule("av"))
    with pytest.raises(ValueError, match="`av` has to be installed"):
        audio.check_packages()


def test_a_part_in_which_nothing_is_said_has_no_segments() -> None:
    """vLLM asks for the last token but one of a list that has one."""
    handler: Any = SimpleNamespace(
        tokenizer=SimpleNamespace(eos_token_id=9, encode=lambda *_, **__: [5])
    )
    segments = SpeechToTextBaseServing._get_verbose_segments.__get__(handler)
    with pytest.raises(IndexError):
        segments(tokens=(9,), segment_class=None, request=None, log_probs=[])
    for tokens in ((), (9,)):
        assert audio._segments(segments, 9, tokens=tokens, log_probs=[]) == []
    assert audio._segments(lambda *, tokens, kind: (tokens, kind), 9, tokens=(1, 9), kind="k") == [
        (1, 9),
        "k",
    ]
    assert "self._get_verbose_segments(\n" in inspect.getsource(SpeechToTextBaseServing)
