"""What `patches/` assumes of vLLM's OpenAI app and renderer, against the installed version.

A test here that fails says what vLLM has changed and which patch to look at.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import vllm.envs as envs
from fastapi import FastAPI
from starlette.requests import Request
from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata, UsageInfo
from vllm.entrypoints.launchers import launcher
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY
from vllm.renderers import BaseRenderer, ChatParams, TokenizeParams, chat_utils
from vllm.renderers.hf import resolve_chat_template, resolve_chat_template_content_format
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.utils.argparse_utils import FlexibleArgumentParser

from serving.engine.vllm import patches
from serving.engine.vllm.image_prompts import LoadedImages
from tests.unit.engine.vllm.sources import parameters, source


@pytest.fixture(scope="module")
def app() -> Any:
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m"])
    return build_app(args, ("generate",), None)


def test_the_layers_that_are_removed_are_there(app: FastAPI) -> None:
    before = {layer.cls for layer in app.user_middleware}
    missing = set(patches._FOR_A_LISTENER) - before
    assert not missing, f"vLLM's app has no {missing} any more: see remove_listener_layers"
    patches.remove_listener_layers(app)
    assert {layer.cls for layer in app.user_middleware} == before - set(patches._FOR_A_LISTENER)


def test_a_dead_engine_orders_the_server_to_exit() -> None:
    text = source(launcher.terminate_if_errored)
    assert "server.should_exit = True" in text, "see ignore_exit_orders"
    app = FastAPI()
    patches.ignore_exit_orders(app)
    dead = SimpleNamespace(errored=True, is_running=False)
    launcher.terminate_if_errored(app.state.server, dead)
    assert app.state.server.should_exit


def test_where_the_app_looks_models_up() -> None:
    changed = "OpenAIServingModels looks models up otherwise: see choose_models"
    assert "self.lora_requests" in source(OpenAIServingModels.__init__), changed
    assert parameters(OpenAIServingModels.is_base_model) == ["self", "model_name"], changed
    assert parameters(OpenAIServingModels.model_name) == ["self", "lora_request"], changed
    models = object.__new__(OpenAIServingModels)
    app = FastAPI()
    app.state.openai_serving_models = models
    patches.choose_models(app, {}, lambda name: name == "ours", lambda lora=None: "ours")
    assert models.is_base_model("ours"), changed
    assert models.model_name(None) == "ours", changed


@pytest.mark.parametrize("kind", [OnlineRenderer, OpenAIServingChat])
def test_the_parts_with_a_chat_template(kind: type) -> None:
    changed = f"{kind.__name__} keeps its chat template elsewhere: see prefer_template"
    assert "self.chat_template = chat_template" in source(kind.__init__), changed  # type: ignore[misc]
    part: Any = object.__new__(kind)
    part.chat_template = "default"
    app = FastAPI()
    app.state.online_renderer, app.state.serving_tokenization = part, None
    asked: list[str | None] = ["own"]
    patches.prefer_template(app, lambda: asked[0])
    assert part.chat_template == "own", changed
    asked[0] = None
    assert part.chat_template == "default", changed
    assert isinstance(part, kind)


@pytest.mark.parametrize(
    "function",
    [OpenAIServingCompletion._create_completion, OpenAIServingChat._create_chat_completion],
)
def test_where_the_app_leaves_the_final_usage(function: Any) -> None:
    assert "raw_request.state.request_metadata = request_metadata" in source(function), (
        f"{function.__qualname__} leaves its usage elsewhere: see final_usage"
    )


def test_the_final_usage() -> None:
    scope: dict[str, Any] = {"type": "http", "state": {}}
    assert patches.final_usage(scope) is None
    metadata = RequestResponseMetadata(request_id="r")
    Request(scope).state.request_metadata = metadata
    assert patches.final_usage(scope) is None, "a request without usage has some: see final_usage"
    metadata.final_usage_info = UsageInfo(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    assert patches.final_usage(scope) == (3, 4), "the app counts otherwise: see final_usage"


def connector_calls() -> Iterator[str]:
    """The connector's methods that vLLM calls while it reads a chat."""
    for node in ast.walk(ast.parse(inspect.getsource(chat_utils))):
        match node:
            case ast.Attribute(value=ast.Attribute(attr="_connector"), attr=name):
                yield name


async def test_all_media_comes_through_the_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MEDIA_CONNECTOR_REGISTRY, "name2class", {"http": object})
    connector = LoadedImages(list)
    patches.replace_media_connector(connector)
    found = MEDIA_CONNECTOR_REGISTRY.load(envs.VLLM_MEDIA_CONNECTOR, media_io_kwargs=None)
    assert found is connector, "vLLM finds its connector elsewhere: see replace_media_connector"
    calls = set(connector_calls())
    assert "fetch_image_async" in calls, "chats load images otherwise: see LoadedImages"
    for name in calls:
        with pytest.raises(VLLMValidationError, match="not loaded here"):
            await getattr(connector, name)("file:///etc/passwd")


# the renderer


def test_what_is_called_of_the_renderer() -> None:
    assert parameters(BaseRenderer.render_chat_async)[1:4] == [
        "conversations",
        "chat_params",
        "tok_params",
    ], "see render_chat"
    assert parameters(BaseRenderer.render_cmpl_async)[1:3] == ["prompts", "tok_params"], (
        "see render_prompt"
    )
    for name in ("get_tokenizer", "get_mm_processor"):
        assert parameters(getattr(BaseRenderer, name)) == ["self"], f"{name} has changed"
    given = {field.name for field in dataclasses.fields(ChatParams)}
    assert {"chat_template", "chat_template_kwargs"} <= given, "see render_chat"
    given = {field.name for field in dataclasses.fields(TokenizeParams)}
    assert {"max_total_tokens", "add_special_tokens"} <= given, "see render_chat"


def test_how_templates_are_found() -> None:
    assert parameters(resolve_chat_template) == [
        *("tokenizer", "chat_template", "tools"),
        "model_config",
    ], "see chat_template"
    assert parameters(resolve_chat_template_content_format) == [
        *("chat_template", "tools", "given_format", "tokenizer"),
        "model_config",
    ], "see wants_parts"


def test_which_chats_are_written_in_code() -> None:
    assert 'model_type == "gpt_oss"' in source(OnlineRenderer.__init__), (
        "vLLM writes other models' chats in code now: see uses_templates"
    )
