"""Every ID of the API is known, as what it should be, and none is known besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.accounts.caller import ANYONE
from serving.catalogue import memory
from serving.catalogue.load import load_catalogue, seed_catalogue
from serving.catalogue.plan import plan_model
from serving.catalogue.spec import AdapterSpec, EngineSpec, RetiredSpec, UpstreamSpec
from serving.errors import NotDeployed, RetiredModel
from serving.router.resolve import Resolver

ENGINES = [
    "llama-7b",
    "llama-2-7b",
    "llama-2-7b-chat",
    "llama-2-13b",
    "llama-2-13b-chat",
    "llama-2-70b",
    "llama-2-70b-chat",
    "llama-3-8b",
    "llama-3-8b-instruct",
    "llama-3-1-8b-instruct",
    "llama-3-1-70b-instruct",
    "llama-3-70b-instruct",
    "llama-3-2-1b-instruct",
    "llama-3-2-3b-instruct",
    "Meta-Llama-3-8B-Instruct-RMU",
    "Meta-Llama-3-8B-Instruct-RR",
    "Meta-Llama-3-8B-Instruct-LAT",
    "falcon-7b",
    "falcon-7b-instruct",
    "falcon-40b",
    "falcon-40b-instruct",
    "mistral-7b",
    "mistral-7b-instruct",
    "mixtral-8x7b",
    "mixtral-8x7b-instruct",
    "mixtral-8x22b-instruct",
    "llm-jp-13b-instruct-full",
    "llm-jp-13b-instruct-full-dolly",
    "zephyr-7b-alpha",
    "zephyr-7b-beta",
    "codellama-7b",
    "codellama-7b-instruct",
    "codellama-13b",
    "codellama-13b-instruct",
    "codellama-34b",
    "codellama-34b-instruct",
    "phi-3-mini-4k-instruct",
    "dolphin-2.9-llama3-8b",
    "dolphin-2.9-llama3-70b",
]
TRANSFORMERS = ["mpt-7b", "mpt-7b-instruct", "flan-t5-xxl"]
ADAPTERS = ["Meta-Llama-3-8B-Instruct-DERTA", "zephyr-cat-merged", "phi-3-cat-merged"]
UPSTREAM = ["gpt-4o", "gpt-4o-mini", "gpt-4o-2024-08-06"]
RETIRED = [
    "gpt-4",
    "gpt-4-0613",
    "gpt-4-32k",
    "gpt-4-32k-0613",
    "gpt-4-vision-preview",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-0613",
    "gpt-3.5-turbo-16k",
    "gpt-3.5-turbo-16k-0613",
    "gemini-pro",
    "gemini-1.5-pro-001",
    "gemini-1.5-pro-002",
    "gemini-1.5-pro-preview-0409",
    "gemini-1.5-pro-preview-0514",
    "text-davinci-003",
    "text-davinci-002",
    "text-curie-001",
    "text-babbage-001",
    "text-ada-001",
    "claude-instant-1",
    "claude-instant-1.1",
    "claude-2",
    "claude-2.0",
]
KINDS: dict[str, type] = {
    **dict.fromkeys(ENGINES + TRANSFORMERS, EngineSpec),
    **dict.fromkeys(ADAPTERS, AdapterSpec),
    **dict.fromkeys(UPSTREAM, UpstreamSpec),
    **dict.fromkeys(RETIRED, RetiredSpec),
}
SEED = {model.id: model for model in seed_catalogue().models}
# The text that the IDs come from, where it lies beside the checkout.
TEXT = Path(__file__).parents[4] / "shared" / "seed" / "create-completion.txt"

every_id = pytest.mark.parametrize("name", KINDS)
every_engine = pytest.mark.parametrize("name", ENGINES + TRANSFORMERS)


def engine(name: str) -> EngineSpec:
    spec = SEED[name]
    assert isinstance(spec, EngineSpec)
    return spec


def test_the_71_ids_are_known_and_no_others() -> None:
    assert len(KINDS) == 71
    assert set(SEED) == set(KINDS)
    assert len(ENGINES + TRANSFORMERS + ADAPTERS) == 45


def ids_in(text: str) -> Iterator[str]:
    """The IDs: lines between the note on custom models and the prompt's description."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("Note: For custom models"))
    for line in lines[start + 1 :]:
        if line.startswith("Prompt for which"):
            return
        yield line.strip(", ")


@pytest.mark.skipif(not TEXT.exists(), reason=f"no {TEXT}: the list above stands alone")
def test_they_are_those_of_the_published_text() -> None:
    ids = list(ids_in(TEXT.read_text()))
    assert len(ids) == 71
    assert set(ids) == set(SEED)


@every_id
def test_each_is_of_its_kind_and_not_deployed(name: str) -> None:
    assert type(SEED[name]) is KINDS[name]
    assert not SEED[name].deployed


@pytest.mark.parametrize("name", [name for name in KINDS if name not in RETIRED])
def test_each_can_be_deployed_by_its_name(name: str, tmp_path: Path) -> None:
    spec = SEED[name]
    lines = [f"- {name}"] + ([f"- {spec.base}"] if isinstance(spec, AdapterSpec) else [])
    file = tmp_path / "models.yaml"
    file.write_text("models:\n" + "\n".join(f"  {line}" for line in lines))
    catalogue = load_catalogue(file)
    assert catalogue.models[0].id == name
    assert len(catalogue.deployed) == len(lines)
    assert len(catalogue.models) == 71
    assert Resolver(catalogue).resolve(name, ANYONE).model == name


@every_engine
def test_each_engine_runs_on_vllm_or_transformers(name: str) -> None:
    assert engine(name).runtime == ("transformers" if name in TRANSFORMERS else "vllm")


@every_engine
def test_each_engine_fits_the_gpus_it_names(name: str) -> None:
    spec = engine(name)
    assert spec.gpu_memory_gib is not None
    assert spec.certainty is not None
    planned = plan_model(spec, spec.gpu_memory_gib)
    assert planned.problems == ()
    assert planned.need is not None
    assert (planned.full_contexts or 0) >= 1
    longest = memory.shape(spec).longest
    if longest is not None and longest > spec.context:
        assert spec.note is not None
        assert str(longest) in spec.note


@every_engine
def test_lora_where_vllm_has_it(name: str) -> None:
    spec = engine(name)
    able = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM")
    assert (spec.lora is not None) == (spec.architecture in able)


@pytest.mark.parametrize("name", ADAPTERS)
def test_each_adapter_has_its_base(name: str) -> None:
    spec = SEED[name]
    assert isinstance(spec, AdapterSpec)
    assert engine(spec.base).lora is not None


def test_upstream_models_take_images_and_end() -> None:
    for name in UPSTREAM:
        spec = SEED[name]
        assert isinstance(spec, UpstreamSpec)
        assert (spec.provider, spec.vision, spec.context) == ("openai", True, 128_000)
        assert str(spec.shutdown_on) == "2027-01-14"


@pytest.mark.parametrize("name", RETIRED)
def test_a_retired_id_is_answered_with_its_date_and_successor(name: str) -> None:
    spec = SEED[name]
    assert isinstance(spec, RetiredSpec)
    assert spec.source
    assert spec.source.startswith("https://")
    assert not isinstance(SEED.get(spec.successor or ""), RetiredSpec)
    with pytest.raises(RetiredModel) as caught:
        Resolver(seed_catalogue()).resolve(name, ANYONE)
    assert spec.retired_on in str(caught.value)
    assert f"'{spec.successor}'" in str(caught.value)


def test_a_known_id_says_how_to_deploy_it() -> None:
    with pytest.raises(NotDeployed, match="`- falcon-40b`"):
        Resolver(seed_catalogue()).resolve("falcon-40b", ANYONE)


def test_the_overriding_template_is_llama_3_instructs() -> None:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(engine("Meta-Llama-3-8B-Instruct-RMU").chat_template)
    messages = [{"role": "user", "content": " Hello! \n"}]
    rendered = template.render(
        bos_token="<|begin_of_text|>", messages=messages, add_generation_prompt=True
    )
    assert rendered == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_derta_has_the_format_it_was_trained_with() -> None:
    """Questions as in its authors' evaluation_lora.py, answers as in their training data
    (RobustNLP/DeRTa)."""
    jinja2 = pytest.importorskip("jinja2")
    spec = SEED["Meta-Llama-3-8B-Instruct-DERTA"]
    assert isinstance(spec, AdapterSpec)
    messages = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye."},
    ]
    rendered = jinja2.Template(spec.chat_template).render(bos_token="<bos>", messages=messages)
    assert rendered == (
        "<bos>[INST] \nHello!\n\n [\\INST] Hi.<|end_of_text|>[INST] \nBye.\n\n [\\INST]"
    )


def test_tool_parsers() -> None:
    """Of models whose template shows tools and whose tokenizer has the parser's token."""
    found = {
        model.id: model.tool_parser
        for model in seed_catalogue().models
        if isinstance(model, EngineSpec) and model.tool_parser
    }
    assert found == {
        "llama-3-1-8b-instruct": "llama3_json",
        "llama-3-1-70b-instruct": "llama3_json",
        "llama-3-2-1b-instruct": "llama3_json",
        "llama-3-2-3b-instruct": "llama3_json",
        "mixtral-8x22b-instruct": "mistral",
    }
