"""Models that are not text models on vLLM, under their real IDs on the whole stack: the second
engine's, a vision model and a hosted model (its provider is a double on loopback). How each of them
answers in detail is tested in tests/gateway/test_transformers.py and upstream/, and in
test_vision_engine.py.
"""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cluster.conftest import apply, local_model, models_with
from tests.live import BASE, ROOT, Server, parse_events, poll
from tests.providers import Double, open_double

SECOND = {"flan-t5-xxl": "tiny-t5", "mpt-7b": "tiny-mpt"}
VISION, HOSTED, RETIRED = "tiny-vision", "gpt-4o-mini", "gpt-4"
GREEDY = {"temperature": 0, "max_tokens": 16}
ON_CPU = {"gpus": 0, "cpus": 0.5, "dtype": "float32", "context": 200}
PROMPTS = ("the people of the water", "many", "one day he had to go and see them all again", "oil")


@pytest.fixture(scope="module")
def provider() -> Iterator[Double]:
    """The double, on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    double = asyncio.run_coroutine_threadsafe(open_double("openai"), loop).result(10)
    yield double
    asyncio.run_coroutine_threadsafe(double.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(scope="module")
def more(_shared: Any, provider: Double, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The running service with all these models."""
    live: Server = _shared.get()
    folder = tmp_path_factory.mktemp("shapes")
    for module in ("seq_shapes", "vision_shape"):
        command = [sys.executable, "-m", f"tests.{module}", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    key = folder / "key"
    key.write_text(next(iter(provider.keys)) + "\n")
    local = local_model(BASE)
    entries: list[Any] = [
        {"id": model, "weights": str(folder / name), "engine_args": {"threads": 1}, **ON_CPU}
        for model, name in SECOND.items()
    ]
    entries.append(
        {
            "id": VISION,
            "weights": str(folder / VISION),
            "vision": True,
            "prompt_style": "chat",
            "env": local["env"],
            "engine_args": {**local["engine_args"], "model_impl": "transformers"},
            **ON_CPU,
        }
    )
    entries.append(HOSTED)
    apply(
        live,
        models_with(
            live,
            entries,
            aliases={RETIRED: HOSTED},
            providers={"openai": {"base_url": provider.base_url, "api_key_file": str(key)}},
        ),
    )
    poll(lambda: live.get(f"{live.url}/ready")["ready"], 30, "all are up")
    yield live
    apply(live, live.models)


@pytest.mark.parametrize("model", SECOND)
def test_the_second_engine_answers_a_batch_as_it_answers_one(more: Server, model: str) -> None:
    alone = [more.text(model, prompt, model_parameters=GREEDY) for prompt in PROMPTS]
    assert len(set(alone)) == len(PROMPTS)
    with ThreadPoolExecutor(8) as pool:
        asked = [prompt for prompt in PROMPTS for _ in range(4)]
        together = pool.map(lambda prompt: more.text(model, prompt, model_parameters=GREEDY), asked)
        assert list(together) == [text for text in alone for _ in range(4)]
    stream = more.complete(model, PROMPTS[0], model_parameters=GREEDY, stream=True)
    events = [event.json for event in parse_events(stream.text)]
    assert "".join(event["completion"]["text"] for event in events) == alone[0]
    assert len(events) > 3
    assert events[-1]["token_usage"]["completion"] <= GREEDY["max_tokens"]


@pytest.mark.parametrize("model", SECOND)
def test_the_second_engine_frees_the_row_of_a_client_that_left(more: Server, model: str) -> None:
    body = {"model": model, "prompt": PROMPTS[0], "stream": True}
    (engine,) = more.engines(model)
    running = "serving_engine_requests_running"
    with more.client.stream("POST", f"{more.url}/v4/completions", json=body) as response:
        next(response.iter_raw())
    poll(lambda: more.sample(engine, running) == 0, 5, "the row is free")


def picture(gradient: str) -> str:
    image = Image.linear_gradient("L") if gradient == "lines" else Image.radial_gradient("L")
    out = io.BytesIO()
    image.convert("RGB").resize((40, 40)).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def test_a_vision_model_sees_the_image_on_both_endpoints(more: Server) -> None:
    texts = {}
    for name in ("lines", "rings"):
        images = [{"image_url": picture(name)}]
        texts[name] = more.text(VISION, "What is it?", images=images, model_parameters=GREEDY)
        content = [
            {"type": "image_url", "image_url": {"url": picture(name)}},
            {"type": "text", "text": "What is it?"},
        ]
        message = {"role": "user", "content": content}
        body = {"model": VISION, "messages": [message], **GREEDY}
        chat = more.post("/v1/chat/completions", **body).json()
        assert chat["choices"][0]["message"]["content"] == texts[name]
    assert texts["lines"] != texts["rings"]


def test_others_take_no_images_and_nothing_is_fetched_unasked(more: Server) -> None:
    images = [{"image_url": picture("lines")}]
    for model in (BASE, *SECOND):
        refused = more.complete(model, "What is it?", images=images)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "images")
    part = {"type": "image_url", "image_url": {"url": picture("lines")}}
    message = {"role": "user", "content": [part]}
    for model in (BASE, *SECOND):
        refused = more.post("/v1/chat/completions", model=model, messages=[message])
        assert refused.status_code == 422, refused.text
    for url in ("https://127.0.0.1/a.png", "https://169.254.169.254/latest", "file:///etc/passwd"):
        refused = more.complete(VISION, "What is it?", images=[{"image_url": url}])
        assert refused.status_code == 422, refused.text


def test_a_provider_answers_and_is_named(more: Server, provider: Double) -> None:
    whole = more.complete(HOSTED, "Hi").json()
    assert whole["completion"]["text"] == "Hello there!"
    assert whole["token_usage"]["prompt"] == 9
    alias = more.complete(RETIRED, "Hi", stream=True)
    last = parse_events(alias.text)[-1].json
    assert last["completion"]["response_metadata"] == {"model": HOSTED}
    assert last["token_usage"]["completion"] == whole["token_usage"]["completion"]
    assert provider.requests[-1].body["model"] == HOSTED
    refused = more.complete(HOSTED, "Hi", model_parameters={"top_k": 3})
    assert refused.status_code == 422
    logs = "".join(file.read_text() for file in Path(more.logs).glob("*"))
    assert not any(key in logs for key in provider.keys)
