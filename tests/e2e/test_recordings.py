"""OpenAI's SDKs send recordings to the running service, which go through its routers' disks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.http.spool import MEMORY_BYTES
from tests.cluster.conftest import apply, local_model, models_with
from tests.e2e.conftest import node_script
from tests.live import BASE, KEY, Server, poll
from tests.whisper_shape import CONTEXT, recording, write_whisper

WHISPER, ALIAS = "tiny-whisper", "whisper-1"
FILE = recording(1, 15)


@pytest.fixture(scope="module")
def hears(_shared: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running service with a tiny Whisper, under its own ID and OpenAI's."""
    folder = tmp_path_factory.mktemp("shapes") / WHISPER
    write_whisper(folder)
    live: Server = _shared.get()
    local = local_model(BASE)
    own = {"id": WHISPER, "task": "transcribe", "weights": str(folder), "context": CONTEXT}
    own |= {name: local[name] for name in ("gpus", "cpus", "dtype", "engine_args", "env")}
    apply(live, models_with(live, [own], aliases={ALIAS: WHISPER}))
    poll(lambda: live.get(f"{live.url}/ready")["ready"], 60, "all are up")
    yield live
    apply(live, live.models)


@pytest.fixture(scope="module")
def text(hears: Server) -> str:
    """What is heard in the recording, by OpenAI's SDK for Python."""
    assert len(FILE) > MEMORY_BYTES
    client = openai.OpenAI(api_key=KEY, base_url=f"{hears.url}/v1", max_retries=0)
    with client:
        transcribe: Any = client.audio.transcriptions.create
        asked = {"file": ("a.wav", FILE), "temperature": 0, "language": "en"}
        heard = [transcribe(model=model, **asked).text for model in (WHISPER, ALIAS)]
        events = list(transcribe(model=ALIAS, stream=True, **asked))
    assert heard[0] == heard[1] == events[-1].text
    assert heard[0]
    return str(heard[0])


def test_openais_sdk_for_python(hears: Server, text: str) -> None:
    with openai.OpenAI(api_key=KEY, base_url=f"{hears.url}/v1", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="no-such-model"):
            client.audio.transcriptions.create(model="no-such-model", file=("a.wav", FILE))
        with pytest.raises(openai.UnprocessableEntityError, match="does not answer at"):
            client.audio.transcriptions.create(model=BASE, file=("a.wav", FILE))


def test_openais_sdk_for_javascript(hears: Server, text: str) -> None:
    file = base64.b64encode(FILE).decode()
    job = {"url": hears.url, "key": KEY, "model": WHISPER, "recording": file}
    done = subprocess.run(
        ["node", str(node_script("use_openai.mjs"))],
        input=json.dumps(job),
        env={"PATH": os.environ["PATH"], "HOME": str(Path(hears.folder))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    # It does not say the language, which the model then finds out.
    assert found["heard"]["usage"] == {"type": "duration", "seconds": 15}
    assert found["line"] == found["heard"]["text"] + "\n"
    *deltas, (kind, last) = found["events"]
    assert {kind for kind, _ in deltas} == {"transcript.text.delta"}
    assert kind == "transcript.text.done"
    assert "".join(delta for _, delta in deltas) == last == found["heard"]["text"]
