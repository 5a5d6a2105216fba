from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.spec import AdapterSpec, EngineSpec, ImageLimits

BASE = {"kind": "engine", "id": "base", "weights": "org/base-7b", "context": 128, "lora": {}}
TUNED = {"kind": "adapter", "id": "base.tuned", "base": "base", "weights": "/w/tuned"}


def catalogue(*models: dict[str, Any], **aliases: str) -> Catalogue:
    return Catalogue.model_validate({"models": models, "aliases": aliases})


def test_engines_and_adapters() -> None:
    found = catalogue(BASE, TUNED, latest="base.tuned")
    assert [model.id for model in found.engines] == ["base"]
    assert [model.id for model in found.adapters] == ["base.tuned"]
    assert isinstance(found.models[1], AdapterSpec)
    assert found.aliases == {"latest": "base.tuned"}


@pytest.mark.parametrize(
    ("models", "aliases", "message"),
    [
        ([BASE, BASE], {}, "model 'base': id: used twice"),
        ([TUNED], {}, "'base.tuned': base: 'base' is no engine model"),
        ([BASE, TUNED, {**TUNED, "id": "b", "base": "base.tuned"}], {}, "'b': base: 'base.tuned'"),
        ([{**BASE, "lora": None}, TUNED], {}, "base: 'base' has no `lora:`"),
        ([BASE], {"base": "base"}, "alias 'base': is also a model ID"),
        ([BASE], {"new": "gone"}, "alias 'new': points to 'gone'"),
        ([BASE], {"a": "b", "b": "base"}, "alias 'a': points to 'b'"),
    ],
)
def test_a_reference_to_nowhere_is_refused(
    models: list[dict[str, Any]], aliases: dict[str, str], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        catalogue(*models, **aliases)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "has space"},
        {"id": "-flag"},
        {"id": "x" * 257},
        {"context": 0},
        {"replicas": 0},
        {"tensor_parallel": 0},
        {"gpus": -1},
        {"prompt_style": "poem"},
        {"lora": {"max_rank": 7}},
        {"lora": {"max_loaded": 0}},
        {"wieghts": "typo"},
    ],
)
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EngineSpec.model_validate({**BASE, **change})


def test_gpus_follow_tensor_parallel_unless_said() -> None:
    assert EngineSpec.model_validate({**BASE, "tensor_parallel": 4}).gpus_per_replica == 4
    assert EngineSpec.model_validate({**BASE, "gpus": 0}).gpus_per_replica == 0


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"lora": {}}, "write `lora: null`"),
        ({"vision": True}, "write `vision: false`"),
        ({"prompt_style": "chat"}, "write `prompt_style: raw`"),
        ({"chat_template": "{{ x }}"}, "write `chat_template: null`"),
        ({"runtime": "transformers"}, "write `runtime: vllm`"),
    ],
)
def test_an_embedding_model_does_nothing_else(change: dict[str, Any], fix: str) -> None:
    embeds = {**BASE, "lora": None, "task": "embed"}
    assert EngineSpec.model_validate(embeds).task == "embed"
    with pytest.raises(ValidationError, match=fix):
        EngineSpec.model_validate(embeds | change)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"lora": {}}, "a scoring model takes no adapters; write `lora: null`"),
        ({"vision": True}, "write `vision: false`"),
        ({"prompt_style": "chat"}, "write `prompt_style: raw`"),
        ({"runtime": "transformers"}, "write `runtime: vllm`"),
    ],
)
def test_a_scoring_model_does_nothing_else(change: dict[str, Any], fix: str) -> None:
    scores = {**BASE, "lora": None, "task": "score"}
    # The template that query and document are put into: language models that rank have one.
    assert EngineSpec.model_validate({**scores, "chat_template": "{{ messages }}"}).task == "score"
    with pytest.raises(ValidationError, match=fix):
        EngineSpec.model_validate(scores | change)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"lora": {}}, "a model for recordings takes no adapters; write `lora: null`"),
        ({"vision": True}, "write `vision: false`"),
        ({"prompt_style": "chat"}, "write `prompt_style: raw`"),
        ({"chat_template": "{{ x }}"}, "write `chat_template: null`"),
        ({"tool_parser": "hermes"}, "write `tool_parser: null`"),
        ({"runtime": "transformers"}, "write `runtime: vllm`"),
    ],
)
def test_a_model_for_recordings_does_nothing_else(change: dict[str, Any], fix: str) -> None:
    hears = {**BASE, "lora": None, "task": "transcribe"}
    assert EngineSpec.model_validate(hears).task == "transcribe"
    with pytest.raises(ValidationError, match=fix):
        EngineSpec.model_validate(hears | change)


def test_a_task_is_not_set_behind_its_field() -> None:
    assert EngineSpec.model_validate(BASE).task == "generate"
    with pytest.raises(ValidationError, match="'runner' is set by the field `task`"):
        EngineSpec.model_validate({**BASE, "engine_args": {"runner": "pooling"}})


def test_base_names() -> None:
    assert EngineSpec.model_validate(BASE).base_names == {"base", "base-7b"}


def test_a_spec_is_frozen() -> None:
    spec = EngineSpec.model_validate(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        spec.context = 5  # type: ignore[misc]


@pytest.mark.parametrize("host", ["a.example.com", "*.example.com", "*", "a.org:8443", "*:8443"])
def test_image_hosts(host: str) -> None:
    assert ImageLimits(allowed_hosts=(host,)).allowed_hosts == (host,)


@pytest.mark.parametrize("host", ["", "https://a.org", "a.org/x", "*a.org", "a.*.org", "a b", "a:"])
def test_image_hosts_that_would_match_nothing_are_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="allowed_hosts"):
        ImageLimits(allowed_hosts=(host,))
