"""What `patches/pooling.py` assumes of vLLM, against the installed version."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.pooling.base.io_processor import PoolingIOProcessor
from vllm.entrypoints.pooling.base.serving import PoolingBaseServing, PoolingServing
from vllm.entrypoints.pooling.factories import init_pooling_state
from vllm.entrypoints.pooling.scoring.io_processor import CrossEncoderIOProcessor
from vllm.entrypoints.pooling.scoring.protocol import ScoringRequestMixin
from vllm.entrypoints.pooling.typing import PoolingEngineInput
from vllm.entrypoints.pooling.utils import enable_scoring_api
from vllm.pooling_params import PoolingParams

from serving.engine.bodies import pairs
from serving.engine.vllm.patches import admission, pooling
from serving.engine.vllm.patches.pooling import Pooled, Replay
from tests.unit.engine.vllm.test_admission import build


def test_each_prompt_of_a_request_is_rendered_by_itself_in_their_order() -> None:
    source = inspect.getsource(PoolingBaseServing._preprocessing)
    assert "*[io_processor.render_async(request) for request in requests]" in source
    assert "self.render_async = make_async(" in inspect.getsource(PoolingIOProcessor.__init__)
    assert "self.io_processor = self.init_io_processor(" in inspect.getsource(
        PoolingServing.__init__
    )
    state = inspect.getsource(init_pooling_state)
    assert "state.serving_embedding = (" in state
    assert "state.serving_scores = (" in state


def test_what_is_rendered() -> None:
    names = {"prompts", "params", "lora_requests", "priorities"}
    assert PoolingEngineInput.__annotations__.keys() == names
    source = inspect.getsource(CrossEncoderIOProcessor.render)
    assert "params = params.clone()" in source
    assert '"compressed_token_type_ids": compressed' in source


def test_all_requests_of_a_call_are_made_before_the_first_is_waited_for() -> None:
    source = inspect.getsource(PoolingBaseServing._prepare_generators)
    assert "generator = self.engine_client.encode(\n" in source
    assert source.rstrip().endswith("merge_async_iterators(*generators)")


def test_vllms_names_for_the_two_sides() -> None:
    """A name that is not known here would pass unchecked."""
    models = admission.request_models(build("embed"))
    assert models.keys() >= pairs.PATHS
    given = {
        field for path in pairs.PATHS for model in models[path] for field in model.model_fields
    }
    assert given - ScoringRequestMixin.model_fields.keys() == pairs.FIELDS | {"top_n"}


def test_a_cross_encoder_is_a_classifier_with_one_label() -> None:
    source = inspect.getsource(enable_scoring_api)
    assert 'getattr(model_config.hf_config, "num_labels", 0)' in source
    for task, labels, right in (("classify", 1, True), ("classify", 2, False), ("embed", 1, False)):
        config = SimpleNamespace(
            get_pooling_task=lambda tasks: tasks[0], hf_config=SimpleNamespace(num_labels=labels)
        )
        assert pooling.is_cross_encoder((task,), config) is right


def app(render: Any) -> Any:
    serving = SimpleNamespace(io_processor=SimpleNamespace(render_async=render))
    return SimpleNamespace(state=SimpleNamespace(serving_scores=serving, serving_embedding=None))


def request(number: int) -> dict[str, Any]:
    return {
        "number": number,
        "params": PoolingParams(task="classify"),
        "lora_requests": None,
        "priorities": number,
    }


async def test_renders_are_recorded_in_their_order_and_replayed() -> None:
    calls = []

    async def render(asked: Any) -> Any:
        calls.append(asked["number"])
        await asyncio.sleep(0.02 / (1 + asked["number"]))  # the last is the first to be ready
        params = asked["params"].clone()
        params.extra_kwargs = {"compressed_token_type_ids": asked["number"]}
        ids = list(range(asked["number"]))
        inputs = {"type": "token", "prompt_token_ids": ids, "prompt": "text", "arrival_time": 1.0}
        return {"prompts": inputs, "params": params, "lora_requests": None, "priorities": 0}

    async def ask(of: Any) -> list[Any]:
        ask_one = of.state.serving_scores.io_processor.render_async
        return await asyncio.gather(*[ask_one(request(number)) for number in range(3)])

    found: list[Pooled | None] = []
    theirs = app(render)
    pooling.record(theirs, lambda: found)
    rendered = await ask(theirs)
    known = [one for one in found if one is not None]
    assert [one.tokens for one in known] == [0, 1, 2]
    assert "prompt" not in known[0].inputs, "a text that nobody reads stays behind"

    ours, replay = app(render), Replay()
    replay.install(ours)
    calls.clear()

    async def as_a_call() -> None:
        replay.set(known)
        for again, first in zip(await ask(ours), rendered, strict=True):
            assert again["params"] == first["params"]
            assert again["prompts"] == {k: v for k, v in first["prompts"].items() if k != "prompt"}
        assert not calls

    await asyncio.create_task(as_a_call())
    await ask(ours)
    assert calls == [0, 1, 2], "another request is rendered"


async def test_what_is_more_than_text_is_not_kept() -> None:
    async def render(asked: Any) -> Any:
        inputs = {"type": "multimodal", "prompt_token_ids": [1], "mm_kwargs": {}}
        return {"prompts": inputs, "params": asked["params"]}

    found: list[Pooled | None] = []
    theirs = app(render)
    pooling.record(theirs, lambda: found)
    await theirs.state.serving_scores.io_processor.render_async(request(0))
    assert found == [None]
