"""A model for recordings on a real vLLM engine, compared with what Hugging Face's class generates.

An engine server by itself, asked over its link.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.api.audio import TRANSCRIPTIONS, TRANSLATIONS
from serving.catalogue.spec import EngineSpec
from serving.observability.logs import Log
from serving.router.answer import Answer, AttemptFailed
from serving.wire.messages import CompletionCall, HttpCall, Sampling
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import EngineLink, EngineServer, engine_link, engine_server
from tests.conftest import Eventually
from tests.live import BASE
from tests.whisper_shape import CONTEXT, RATE, SECONDS, recording, samples, write_whisper

WHISPER, ALIAS = "tiny-whisper", "whisper-1"
# The marks that a prompt consists of: start, language, task, no timestamps.
MARKS = 4
GREEDY = {"language": "en", "temperature": "0"}
SHORT = recording(1, 0.2)


class HuggingFace:
    """The same checkpoint in the library it is made for."""

    def __init__(self, weights: Path) -> None:
        import transformers

        self._processor: Any = transformers.WhisperProcessor.from_pretrained(weights)
        build: Any = transformers.WhisperForConditionalGeneration
        self._model = build.from_pretrained(weights).float().eval()

    def text(self, seed: int, tokens: int, task: str = "transcribe") -> str:
        """What is said in a recording, in so many tokens at most."""
        import numpy

        levels = [round(level * 32767) / 32768 for level in samples(seed)]
        features = self._processor.feature_extractor(
            numpy.array(levels, dtype="float32"), sampling_rate=RATE, return_tensors="pt"
        ).input_features
        made = self._model.generate(
            input_features=features, language="en", task=task, max_new_tokens=tokens
        )
        said: str = self._processor.tokenizer.decode(made[0], skip_special_tokens=True)
        return said


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / WHISPER
    write_whisper(folder)
    return folder


@pytest.fixture(scope="module")
def spec(weights: Path) -> EngineSpec:
    local = local_model(BASE)
    same = {field: local[field] for field in ("gpus", "cpus", "dtype", "engine_args", "env")}
    env = {**same.pop("env"), "SERVING_LIMIT_AUDIO_SECONDS": "20"}
    return EngineSpec(
        id=WHISPER, task="transcribe", weights=str(weights), context=CONTEXT, env=env, **same
    )


@pytest.fixture(scope="module")
def engine(spec: EngineSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    with engine_server(spec, tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
async def link(engine: EngineServer, log: Log, eventually: Eventually) -> AsyncIterator[EngineLink]:
    async with engine_link(engine, log) as link:
        await eventually(lambda: link.up)
        yield link


async def ask(
    link: EngineLink, file: bytes, path: str = TRANSCRIPTIONS, model: str = WHISPER, **fields: str
) -> tuple[Answer, dict[str, Any]]:
    answer, said = await link.call(*form_call(file, path, model, **fields))
    return answer, json.loads(said)


def form_call(file: bytes, path: str, model: str, **fields: str) -> tuple[HttpCall, bytes]:
    """What a router would send for this form."""
    form = httpx.Request(
        "POST", "http://x", data={"model": model, **fields}, files={"file": ("a.wav", file)}
    )
    headers = (("content-type", form.headers["content-type"]),)
    return HttpCall("req-1", model, "POST", path, headers=headers), form.read()


@pytest.mark.parametrize("model", [WHISPER, ALIAS])
@pytest.mark.parametrize(
    ("path", "task"), [(TRANSCRIPTIONS, "transcribe"), (TRANSLATIONS, "translate")]
)
async def test_it_hears_what_hugging_face_hears(
    link: EngineLink, weights: Path, model: str, path: str, task: str
) -> None:
    reference = HuggingFace(weights)
    heard = []
    for seed in range(4):
        expected = reference.text(seed, 30, task)
        _, found = await ask(
            link, recording(seed), path, model, **GREEDY, max_completion_tokens="30"
        )
        assert found["text"] == expected
        heard.append(expected)
    assert len(set(heard)) > 1, "a recording makes a difference"


async def test_tokens_are_counted_once(link: EngineLink) -> None:
    """Those of each part of a recording, and of the one token that says the language."""
    file = recording(1)
    answer, found = await ask(link, file, **GREEDY, max_completion_tokens="7")
    assert found["usage"] == {"type": "duration", "seconds": 2}
    assert answer.end is not None
    assert (answer.end.prompt_tokens, answer.end.completion_tokens) == (MARKS, 7)
    answer, _ = await ask(link, file, temperature="0", max_completion_tokens="7")
    assert answer.end is not None
    assert (answer.end.prompt_tokens, answer.end.completion_tokens) == (1 + MARKS, 1 + 7)
    answer, _ = await ask(link, recording(1, 5), **GREEDY, max_completion_tokens="7")
    assert answer.end is not None
    parts, rest = divmod(answer.end.prompt_tokens, MARKS)
    assert (parts >= 3, rest, answer.end.completion_tokens) == (True, 0, 7 * parts)


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
async def test_segments_with_their_times(link: EngineLink, path: str) -> None:
    """The parts of a recording one after the other, and the text of all of them."""
    fields = {**GREEDY, "response_format": "verbose_json", "timestamp_granularities[]": "segment"}
    for seed in range(4):
        _, found = await ask(link, recording(seed, 5), path, **fields)
        assert (round(found["duration"], 1), found["language"]) == (5, "en")
        times = [(one["start"], one["end"]) for one in found["segments"]]
        assert times == sorted(times, key=lambda time: time[0] // SECONDS)
        assert found["text"] == " ".join(one["text"] for one in found["segments"])


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
async def test_a_streams_text_is_that_of_an_answer(link: EngineLink, path: str) -> None:
    for seconds in (1.0, 5.0):
        file = recording(1, seconds)
        _, whole = await ask(link, file, path, **GREEDY)
        call, body = form_call(file, path, WHISPER, **GREEDY, stream="true")
        answer, said = await link.call(call, body)
        *events, last = said.decode().removesuffix("\n\n").split("\n\n")
        assert last == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        assert len(chunks) > 2, "it comes in pieces"
        assert {chunk["model"] for chunk in chunks} == {WHISPER}
        streamed = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
        assert streamed == whole["text"]
        assert answer.end is not None
        assert answer.end.completion_tokens > 2


@pytest.mark.parametrize(
    ("fields", "file", "words"),
    [
        ({}, b"no sound", "Invalid or corrupted audio data"),
        ({}, SHORT[:30], "Invalid or unsupported audio file"),
        ({}, recording(1, 0), "'file': has no sound in it"),
        ({}, b"", "'file': has 0 bytes"),
        ({}, recording(1, 1, rate=700), "'file': is too long; at most 20 seconds are taken"),
        ({"language": "xx"}, SHORT, "xx"),
        ({"prompt": "word " * 30}, SHORT, str(CONTEXT)),
        ({"prompt": "word " * 1500}, SHORT, str(CONTEXT)),
        ({"prompt": "word " * 3000}, SHORT, "'prompt'"),
        ({"max_completion_tokens": "0"}, SHORT, "'max_completion_tokens'"),
        ({"max_completion_tokens": "9" * 30}, SHORT, "'max_completion_tokens'"),
        ({"seed": "9" * 30}, SHORT, "'seed'"),
        ({"temperature": "nan"}, SHORT, "'temperature'"),
        ({"response_format": "srt"}, SHORT, "'response_format'"),
        ({"response_format": "vtt"}, SHORT, "'response_format'"),
        ({"response_format": "diarized_json"}, SHORT, "'response_format'"),
        ({"response_format": "verbose_json", "stream": "true"}, SHORT, "streaming"),
        ({"timestamp_granularities[]": "word"}, SHORT, "'timestamp_granularities[]'"),
        ({"stream": "maybe"}, SHORT, "'stream'"),
        ({"vllm_xargs": "{}"}, SHORT, "'vllm_xargs'"),
        ({"use_beam_search": "true"}, SHORT, "'use_beam_search'"),
    ],
)
async def test_what_the_caller_does_wrong(
    link: EngineLink, fields: dict[str, str], file: bytes, words: str
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await ask(link, file, **{"language": "en", **fields})
    error = caught.value.error
    assert 400 <= error.status < 500, error.message
    assert words in error.message
    assert "VLLM_" not in error.message
    assert not caught.value.retryable
    assert (await ask(link, SHORT, **GREEDY))[1]["text"], "and others are still served"


def encoded(container: str, codec: str, rate: int) -> bytes:
    """A recording as other files have it, written by PyAV."""
    import av
    import numpy

    levels = numpy.array([[round(level * 32767) for level in samples(1)]], dtype="int16")
    sound = av.AudioFrame.from_ndarray(levels, format="s16", layout="mono")
    sound.sample_rate = RATE
    file = io.BytesIO()
    with av.open(file, "w", format=container) as written:
        stream = written.add_stream(codec, rate=rate, layout="mono")
        fitted = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or None)
        for frame in (*fitted.resample(sound), *fitted.resample(None), None):
            written.mux(stream.encode(frame))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("flac", "flac", 44_100),
        ("mp3", "libmp3lame", 44_100),
        ("ogg", "libopus", 48_000),
        ("ipod", "aac", 16_000),
        ("mp4", "aac", 44_100),
        ("webm", "libopus", 48_000),
    ],
)
async def test_files_that_the_description_names(
    link: EngineLink, container: str, codec: str, rate: int
) -> None:
    file = encoded(container, codec, rate)
    assert (await ask(link, file, **GREEDY, max_completion_tokens="3"))[1]["text"]


async def test_two_readers_of_a_form_cannot_be_played_off(link: EngineLink) -> None:
    """The engine takes no model but the one that the router has found."""
    call, body = form_call(SHORT, TRANSCRIPTIONS, "other", **GREEDY)
    with pytest.raises(AttemptFailed, match="other") as caught:
        await link.call(msgspec.structs.replace(call, model=WHISPER), body)
    assert caught.value.error.status == 404


async def test_recordings_at_once_do_not_mix(link: EngineLink) -> None:
    async def hear(seed: int) -> str:
        _, found = await ask(link, recording(seed), **GREEDY, max_completion_tokens="20")
        return str(found["text"])

    alone = [await hear(seed) for seed in range(6)]
    assert await asyncio.gather(*map(hear, range(6))) == alone


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.05])
async def test_a_caller_that_leaves_frees_the_engine(
    link: EngineLink, eventually: Eventually, after_s: float
) -> None:
    """Wherever its request is: the recording of another is heard, and so is the same one again."""
    file = recording(round(7 + 100 * after_s), 18)
    answer = link.open(*form_call(file, TRANSCRIPTIONS, WHISPER, **GREEDY))
    await asyncio.sleep(after_s)
    answer.abandon()
    used = await answer.used(10)
    assert used is not None
    assert used.completion_tokens < 9 * (CONTEXT - MARKS), "it was not heard to its end"
    await eventually(lambda: link.load.in_flight == link.load.running == link.load.waiting == 0)
    assert (await ask(link, SHORT, **GREEDY))[1]["text"]
    assert (await ask(link, file, **GREEDY, max_completion_tokens="2"))[1]["text"]


async def test_nothing_is_kept_of_a_recording_for_another_to_find(
    engine: EngineServer, link: EngineLink
) -> None:
    """vLLM 0.32 has no caches for an encoder with a decoder: neither of media nor of prompts. Once
    it has, `test_image_spaces.py` shows what is to be looked at here."""
    for space in ("acme", "other", ""):
        for _ in range(2):
            call, body = form_call(recording(40), TRANSCRIPTIONS, WHISPER, **GREEDY)
            await link.call(msgspec.structs.replace(call, cache_space=space), body)
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{engine.ready.ops_port}/metrics"
        text = (await client.get(url)).text
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for cache in ("mm_cache", "prefix_cache"):
        assert found[f"vllm:{cache}_hits_total"] == 0
    assert found["vllm:mm_cache_queries_total"] == 0
    assert found["vllm:generation_tokens_total"] > 0, "they are counted at all"


async def test_it_takes_no_prompts(link: EngineLink) -> None:
    call = CompletionCall("req-1", WHISPER, "Once", False, Sampling(), WHISPER)
    with pytest.raises(AttemptFailed, match=TRANSCRIPTIONS) as caught:
        await link.call(call)
    assert (caught.value.error.status, caught.value.error.param) == (400, "model")
