"""Images end to end: a real vLLM engine with a tiny vision model, behind a router, over a link.

No Ray: the engine server runs by itself. Its answers are compared with those of Hugging Face's own
classes to the same images.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from serving.catalogue.catalogue import Catalogue
from serving.observability.logs import open_log
from serving.router.router import Router
from serving.settings import Settings
from serving.wire.entry import Entry
from serving.wire.launch import EngineReady
from tests.cluster.conftest import local_model
from tests.cluster.engine_server import REPLICA, TOKEN, engine_server
from tests.conftest import Eventually
from tests.live import BASE
from tests.vision_shape import write_vision

VISION, TEXT = "tiny-vision", "tiny-text"
QUESTION = "What is it?"
TOKENS = 16
CONTEXT = 256
LIMITS = {"max_per_request": 2, "max_bytes": 2_000_000, "max_pixels": 1_000_000}


def picture(kind: str, size: tuple[int, int] = (40, 40)) -> Image.Image:
    gray = Image.linear_gradient("L") if kind == "lines" else Image.radial_gradient("L")
    return gray.convert("RGB").resize(size)


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    out = io.BytesIO()
    image.save(out, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


LINES, RINGS = picture("lines"), picture("rings")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision") / VISION
    write_vision(folder)
    return folder


class HuggingFace:
    """The same checkpoint in the library it is made for."""

    def __init__(self, weights: Path) -> None:
        import torch
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        load: Any = LlavaForConditionalGeneration.from_pretrained
        self._model = load(weights, dtype=torch.float32).eval()
        self._processor: Any = AutoProcessor.from_pretrained(weights)

    def answer(self, images: Sequence[Image.Image], prompt: str = QUESTION) -> tuple[str, int]:
        """The greedy text, and how many tokens the prompt has."""
        content: list[dict[str, str]] = [{"type": "image"} for _ in images]
        content.append({"type": "text", "text": prompt})
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = self._processor(
            text=text, images=[*images] or None, return_tensors="pt", add_special_tokens=False
        )
        size = inputs["input_ids"].shape[1]
        output = self._model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        return self._processor.tokenizer.decode(output[0][size:], skip_special_tokens=True), size


@pytest.fixture(scope="module")
def reference(weights: Path) -> HuggingFace:
    return HuggingFace(weights)


@pytest.fixture(scope="module")
def catalogue(weights: Path) -> Catalogue:
    local = local_model(BASE)
    shared = {"kind": "engine", "context": CONTEXT, "dtype": "float32", "prompt_style": "chat"}
    vision = {
        **shared,
        "id": VISION,
        "weights": str(weights),
        "vision": True,
        "engine_args": {**local["engine_args"], "model_impl": "transformers"},
        "env": local["env"],
    }
    text = {**shared, "id": TEXT, "weights": "w"}
    return Catalogue.model_validate({"models": [vision, text], "images": LIMITS})


@pytest.fixture(scope="module")
def engine(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineReady]:
    folder = tmp_path_factory.mktemp("engine")
    with engine_server(catalogue.engines[0], folder, catalogue.images) as server:
        yield server.ready


@pytest.fixture
async def client(
    catalogue: Catalogue, engine: EngineReady, tmp_path: Path, eventually: Eventually
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a router that has a link to the engine. The text model has no replica."""
    settings = {"host": "127.0.0.1", "port": 0, "api_keys": "sk-any", "cluster_token": TOKEN}
    router = Router(
        Settings.model_validate(settings),
        router="r1",
        own_host="127.0.0.1",
        drain_s=0.0,
        log=open_log("vision-test", str(tmp_path)),
    )
    await router.set_catalogue(catalogue)
    router.fleet.update(
        [Entry(REPLICA, "engine", VISION, "127.0.0.1", engine.link_port, f"x:{engine.ops_port}")]
    )
    await eventually(lambda: router.fleet.ready(VISION) == 1)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(router.pipeline),
        base_url="http://router",
        headers={"x-api-key": "sk-any"},
        timeout=60,
    ) as client:
        yield client
    await router.close()


def body(images: Sequence[str], prompt: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """The body of a Create Completion."""
    body: dict[str, Any] = {
        "model": VISION,
        "prompt": prompt,
        "model_parameters": {"temperature": 0, "max_tokens": TOKENS},
        **fields,
    }
    if images:
        body["images"] = [{"image_url": url, "detail": "high"} for url in images]
    return body


def chat_body(images: Sequence[str], prompt: str = QUESTION, **fields: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}} for url in images
    ]
    parts.append({"type": "text", "text": prompt})
    message = {"role": "user", "content": parts}
    limits = {"temperature": 0, "max_tokens": TOKENS}
    return {"model": VISION, "messages": [message], **limits, **fields}


def response_body(images: Sequence[str], prompt: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """The body of OpenAI's Responses."""
    parts: list[dict[str, Any]] = [
        {"type": "input_image", "image_url": url, "detail": "high"} for url in images
    ]
    parts.append({"type": "input_text", "text": prompt})
    limits = {"temperature": 0, "max_output_tokens": TOKENS}
    return {"model": VISION, "input": [{"role": "user", "content": parts}], **limits, **fields}


async def complete(client: httpx.AsyncClient, images: Sequence[str], **fields: Any) -> str:
    answer = await client.post("/v4/completions", json=body(images, **fields))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["completion"]["text"])


def blocks_body(images: Sequence[str], prompt: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """The body of Anthropic's Messages."""
    blocks: list[dict[str, Any]] = []
    for url in images:
        kind, comma, data = url.removeprefix("data:").partition(";base64,")
        source = {"type": "base64", "media_type": kind, "data": data}
        blocks.append({"type": "image", "source": source if comma else {"type": "url", "url": url}})
    blocks.append({"type": "text", "text": prompt})
    message = {"role": "user", "content": blocks}
    limits = {"temperature": 0, "max_tokens": TOKENS}
    return {"model": VISION, "messages": [message], **limits, **fields}


async def blocks(client: httpx.AsyncClient, images: Sequence[str]) -> str:
    answer = await client.post("/v1/messages", json=blocks_body(images))
    assert answer.status_code == 200, answer.text
    (block,) = answer.json()["content"]
    return str(block["text"])


async def chat(client: httpx.AsyncClient, images: Sequence[str]) -> str:
    answer = await client.post("/v1/chat/completions", json=chat_body(images))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("images", [[LINES], [RINGS], [LINES, RINGS], [RINGS, LINES], []])
async def test_all_endpoints_answer_what_hugging_face_answers(
    client: httpx.AsyncClient, reference: HuggingFace, images: list[Image.Image]
) -> None:
    right, prompt_tokens = reference.answer(images)
    urls = [data_url(image) for image in images]
    answer = (await client.post("/v4/completions", json=body(urls))).json()
    assert answer["completion"]["text"] == right
    assert answer["token_usage"]["prompt"] == prompt_tokens
    assert answer["token_usage"]["completion"] == TOKENS
    assert await chat(client, urls) == right
    answer = (await client.post("/v1/responses", json=response_body(urls))).json()
    assert answer["output"][0]["content"][0]["text"] == right
    assert answer["usage"]["input_tokens"] == prompt_tokens
    assert await blocks(client, urls) == right
    counted = await client.post("/v1/messages/count_tokens", json=blocks_body(urls))
    assert counted.json()["input_tokens"] == prompt_tokens


async def test_images_in_the_result_of_a_tool(client: httpx.AsyncClient) -> None:
    """Each is seen: their order changes the answer, and each takes its tokens."""
    tokens, texts = set(), set()
    for images in ([LINES, RINGS], [RINGS, LINES], [LINES]):
        request = blocks_body([data_url(image) for image in images])
        (message,) = request["messages"]
        *shown, text = message["content"]
        result = {"type": "tool_result", "tool_use_id": "t", "content": shown}
        message["content"] = [text, result]
        answer = await client.post("/v1/messages", json=request)
        assert answer.status_code == 200, answer.text
        texts.add(answer.json()["content"][0]["text"])
        tokens.add(answer.json()["usage"]["input_tokens"])
    assert (len(texts), len(tokens)) == (3, 2)


async def test_the_answer_changes_with_the_image(client: httpx.AsyncClient) -> None:
    urls = [data_url(LINES), data_url(RINGS)]
    asked = [urls[:1], urls[1:], urls, urls[::-1], []]
    assert len({await complete(client, images) for images in asked}) == len(asked)


async def test_requests_at_once_do_not_mix(
    client: httpx.AsyncClient, reference: HuggingFace
) -> None:
    sets: list[list[Image.Image]] = [[LINES], [RINGS], [LINES, RINGS], []] * 4
    asked = [
        (complete if number % 2 else chat)(client, [data_url(image) for image in images])
        for number, images in enumerate(sets)
    ]
    right = [reference.answer(images)[0] for images in sets[:4]] * 4
    assert await asyncio.gather(*asked) == right


async def test_a_stream_is_the_whole(client: httpx.AsyncClient) -> None:
    whole = await complete(client, [data_url(LINES)])
    answer = await client.post("/v4/completions", json=body([data_url(LINES)], stream=True))
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    assert "".join(event["completion"]["text"] for event in events) == whole
    assert len(events) > 3
    streamed = chat_body([data_url(LINES)], stream=True)
    answer = await client.post("/v1/chat/completions", json=streamed)
    lines = [line[6:] for line in answer.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"].get("content") for line in lines]
    assert "".join(delta or "" for delta in deltas) == whole


async def test_a_large_image_in_a_lossless_format(
    client: httpx.AsyncClient, reference: HuggingFace
) -> None:
    """Far more bytes than one read of the link, and resized by the model's own processor."""
    noise = Image.effect_noise((700, 700), 90).convert("RGB")
    url = data_url(noise)
    assert len(url) > 400_000
    assert await complete(client, [url]) == reference.answer([noise])[0]
    assert await chat(client, [url]) == reference.answer([noise])[0]


async def test_hosts_are_refused_unless_listed(client: httpx.AsyncClient) -> None:
    url = "https://images.example.com/cat.png"
    answer = await client.post("/v4/completions", json=body([data_url(LINES), url]))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "images")
    assert error["message"].startswith("image 2: host 'images.example.com' is not allowed")
    assert "images.allowed_hosts" in error["message"]
    answer = await client.post("/v1/chat/completions", json=chat_body([url]))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "messages")
    assert "images.allowed_hosts" in error["message"]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (["file:///etc/passwd"], "only `data:` and `https:`"),
        (["http://127.0.0.1/a.png"], "only `data:` and `https:`"),
        (["data:image/png;base64,aGVsbG8="], "none of PNG"),
        ([data_url(picture("lines", (2000, 1000)))], "2000 x 1000 pixels"),
        ([data_url(LINES)] * 3, "at most 2"),
    ],
)
async def test_what_is_refused_on_all_endpoints(
    client: httpx.AsyncClient, images: list[str], says: str
) -> None:
    for path, request in (
        ("/v4/completions", body(images)),
        ("/v1/chat/completions", chat_body(images)),
        ("/v1/responses", response_body(images)),
        ("/v1/messages", blocks_body(images)),
    ):
        answer = await client.post(path, json=request)
        assert answer.status_code == 422, answer.text
        assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_media_that_hides_from_our_look_finds_nothing_in_vllm(
    client: httpx.AsyncClient, path: str
) -> None:
    asked = response_body if path == "/v1/responses" else chat_body
    text = json.dumps(asked(["file:///etc/hostname"]))
    for word in ("image", "input_"):
        text = text.replace(f'"{word}', f'"\\u{ord(word[0]):04x}{word[1:]}')
    assert '"image' not in text
    answer = await client.post(path, content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "not loaded here" in answer.json()["error"]["message"]


async def test_an_image_takes_context(client: httpx.AsyncClient) -> None:
    request = body([data_url(LINES)], model_parameters={"max_tokens": CONTEXT - 10})
    answer = await client.post("/v4/completions", json=request)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    answer = await client.post("/v4/completions", json=body([data_url(LINES)], "word " * CONTEXT))
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    request = chat_body([data_url(LINES)], "word " * CONTEXT)
    answer = await client.post("/v1/chat/completions", json=request)
    assert answer.status_code == 400


async def test_an_image_whose_first_request_failed_can_be_sent_again(
    client: httpx.AsyncClient, reference: HuggingFace
) -> None:
    """vLLM sends an image to its core once; the image of a request that failed never got there."""
    new = picture("lines", (50, 30))
    request = body([data_url(new)], model_parameters={"max_tokens": CONTEXT})
    assert (await client.post("/v4/completions", json=request)).status_code == 400
    assert await complete(client, [data_url(new)]) == reference.answer([new])[0]
    new = picture("rings", (50, 30))
    request = chat_body([data_url(new)], logit_bias={"99999999": 1})
    assert (await client.post("/v1/chat/completions", json=request)).status_code == 400
    assert await chat(client, [data_url(new)]) == reference.answer([new])[0]


async def test_a_placeholder_in_the_text_does_no_harm(client: httpx.AsyncClient) -> None:
    right = await complete(client, [data_url(RINGS)])
    for prompt in ("<image>", "<image> " * 30):
        for images in ([], [data_url(LINES)]):
            answer = await client.post("/v4/completions", json=body(images, prompt))
            assert answer.status_code in (200, 400, 422), answer.text
            answer = await client.post("/v1/chat/completions", json=chat_body(images, prompt))
            assert answer.status_code in (200, 400, 422), answer.text
    assert await complete(client, [data_url(RINGS)]) == right


async def test_a_text_model_takes_no_images(client: httpx.AsyncClient) -> None:
    """On the chat endpoint the engine refuses them: `tests/unit/engine/images/test_chat.py`."""
    answer = await client.post("/v4/completions", json=body([data_url(LINES)], model=TEXT))
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == f"model '{TEXT}' takes no images"
