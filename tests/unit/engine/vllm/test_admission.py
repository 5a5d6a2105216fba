"""The assumptions behind `serving/engine/vllm/patches/admission.py`, against the installed vLLM."""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.serial_utils import MsgpackEncoder

from serving.api.endpoints import ENDPOINTS, Relayed
from serving.api.openai import parse_openai
from serving.engine.bodies.fields import fields_of, kinds_of
from serving.engine.vllm.patches import admission


class Core:
    """The core's client: it encodes what it is sent, as vLLM's does, and can hang."""

    def __init__(self) -> None:
        self.encoder = MsgpackEncoder()
        self.added: list[str] = []
        self.aborted: list[str] = []
        self.hangs = False

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        self.encoder.encode(request)
        self.added.append(request.request_id)
        if self.hangs:
            await asyncio.Event().wait()

    def shutdown(self, timeout: float | None = None) -> None:
        pass

    async def abort_requests_async(self, names: list[str]) -> None:
        self.aborted += names


def bare_llm() -> Any:
    """vLLM's own `AsyncLLM` with its output processor, and no engine behind it."""
    llm = object.__new__(AsyncLLM)
    llm.output_processor = OutputProcessor(None, log_stats=False)
    llm.engine_core = Core()
    llm.log_requests = False
    llm.vllm_config = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_queued_reqs=4, max_num_queued_tokens=None)
    )
    llm.scheduler_config = llm.vllm_config.scheduler_config
    llm.admission_stats = None
    llm.logger_manager = llm.renderer = llm.output_handler = None
    return llm


@pytest.fixture
def llm(no_engine: None) -> Any:
    return bare_llm()


def request(name: str, **params: Any) -> EngineCoreRequest:
    return EngineCoreRequest(
        request_id=name,
        external_req_id=f"outside-{name}",
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=SamplingParams(max_tokens=9, output_kind=RequestOutputKind.DELTA, **params),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


async def add(llm: Any, one: EngineCoreRequest) -> None:
    collector = RequestOutputCollector(RequestOutputKind.DELTA, one.request_id)
    await llm._add_request(one, None, None, 0, collector)


REFUSED = [{"top_k": 2**70}, {"stop": ["\ud800"]}, {"extra_args": {"a": "\ud800"}}]


@pytest.mark.parametrize("params", REFUSED)
async def test_vllm_itself_keeps_what_it_could_not_send(llm: Any, params: dict[str, Any]) -> None:
    with pytest.raises((OverflowError, UnicodeError)):
        await add(llm, request("r", **params))
    assert llm.output_processor.request_states, (
        "vLLM frees a request that it could not send: remove free_failed_requests"
    )


@pytest.mark.parametrize("params", REFUSED)
async def test_what_could_not_be_sent_is_freed(llm: Any, params: dict[str, Any]) -> None:
    admission.free_failed_requests(llm)
    for number in range(3000):
        with pytest.raises((OverflowError, UnicodeError)):
            await add(llm, request(f"r{number}", **params))
    processor = llm.output_processor
    assert not processor.request_states
    assert not processor.external_req_ids
    await add(llm, request("sound"))
    assert list(processor.request_states) == ["sound"]


async def test_a_request_that_is_cancelled_halfway_in_is_freed(llm: Any) -> None:
    admission.free_failed_requests(llm)
    llm.engine_core.hangs = True
    task = asyncio.create_task(add(llm, request("r")))
    await asyncio.sleep(0.01)
    assert llm.output_processor.request_states
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not llm.output_processor.request_states
    assert llm.engine_core.aborted == ["r"], "the core may have got it"


async def test_nothing_is_aborted_in_a_dead_engine(
    llm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncLLM, "errored", True)
    admission.free_failed_requests(llm)
    with pytest.raises(OverflowError):
        await add(llm, request("r", top_k=2**70))
    assert llm.engine_core.aborted == []


def test_where_requests_are_added() -> None:
    changed = "AsyncLLM adds requests otherwise: see free_failed_requests"
    text = textwrap.dedent(inspect.getsource(AsyncLLM.add_request))
    assert "await self._add_request(request, " in text, changed
    # The choices of a request with n > 1, which vLLM frees itself.
    fan_out = text[text.index("Fan out child requests") :]
    assert "await self.abort(parent_request.request_id, internal=True)" in fan_out, changed
    assert list(inspect.signature(AsyncLLM._add_request).parameters)[1] == "request", changed


def test_the_limit_of_the_queue(llm: Any) -> None:
    assert admission.queue_limit(llm) == 4
    assert "max_num_queued_reqs" in inspect.getsource(AsyncLLM.check_admission)


def build(*tasks: Any) -> FastAPI:
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m"])
    config = SimpleNamespace(
        get_pooling_task=lambda _: "embed", architecture="", is_cross_encoder=False, hf_config=None
    )
    return build_app(args, tasks, config if "embed" in tasks else None)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    app = build("generate")
    admission.refuse_what_validators_raise(app)
    return app


@pytest.fixture(scope="module")
def models(app: FastAPI) -> dict[str, Any]:
    return admission.request_models(app) | admission.request_models(build("embed"))


def test_every_endpoint_that_is_relayed_has_a_model(models: dict[str, Any]) -> None:
    relayed = {
        endpoint.answer.path or endpoint.path
        for endpoint in ENDPOINTS
        if isinstance(endpoint.answer, Relayed) and endpoint.answer.parse is parse_openai
    }
    assert {"/v1/embeddings", "/score", "/rerank"} <= relayed
    assert relayed <= models.keys(), "vLLM's app takes bodies otherwise: see request_models"


def test_every_type_of_a_field_is_one_that_the_check_knows(models: dict[str, Any]) -> None:
    """Fails when an upgrade of vLLM has a field whose type `kinds_of` does not cover."""
    for path, kinds in models.items():
        fields = fields_of(kinds)
        assert fields, path
        assert all(fields.values()), path


def test_the_kinds_of_fields_that_vllm_takes_for_granted(app: FastAPI) -> None:
    fields = fields_of(admission.request_models(app)["/v1/chat/completions"])
    assert fields["structured_outputs"] == kinds_of(dict[str, int])
    assert fields["messages"] == kinds_of(list[str])
    assert fields["stop"] == kinds_of(str | list[str])
    assert fields["n"] == kinds_of(int)


@pytest.mark.parametrize(
    "body",
    [
        {"structured_outputs": False},
        {"tools": [{}], "tool_choice": {"type": "function", "function": {"name": "a"}}},
        {"tools": 5, "tool_choice": {"type": "function", "function": {"name": "a"}}},
        {"messages": [{"role": "assistant", "tool_calls": 5}]},
        {"messages": None},
    ],
)
async def test_what_a_validator_raises_is_the_bodys_fault(
    app: FastAPI, body: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": "a"}]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        answer = await client.post("/v1/chat/completions", json={"messages": messages} | body)
    assert answer.status_code == 400, answer.text
