"""Computed sizes, against published counts and against sums done by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from local_models.make import RERANKER, WEIGHTS
from serving.catalogue import memory
from serving.catalogue.load import seed_catalogue
from serving.catalogue.memory import OVERHEAD, divides, need, shape
from serving.catalogue.shapes import Linear, Shape, UnknownShapeError, shape_of
from serving.catalogue.spec import EngineSpec

SEED = {model.id: model for model in seed_catalogue().models if isinstance(model, EngineSpec)}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def spec(**changes: Any) -> EngineSpec:
    fields: dict[str, Any] = {
        "id": "m",
        "weights": "org/m",
        "context": 1000,
        "config": TINY,
        "architecture": "LlamaForCausalLM",
    }
    return EngineSpec.model_validate(fields | changes)


# The counts of the published checkpoints. Falcon-7B's has 7.22 billion: its output head is stored
# as well as tied, and in memory once.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b-instruct", 70_553_706_496),
        ("llama-3-2-1b-instruct", 1_235_814_400),
        ("llama-3-2-3b-instruct", 3_212_749_824),
        ("codellama-34b", 33_743_970_304),
        ("mistral-7b", 7_241_732_096),
        ("mixtral-8x7b", 46_702_792_704),
        ("phi-3-mini-4k-instruct", 3_821_079_552),
        ("falcon-7b", 7_217_189_760 - 65_024 * 4_544),
        ("mpt-7b", 6_649_286_656),
    ],
)
def test_parameters_are_those_published(name: str, parameters: int) -> None:
    assert shape(SEED[name]).parameters == parameters


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("falcon-40b", 41.3),
        ("mixtral-8x22b-instruct", 140.6),
        ("llm-jp-13b-instruct-full", 12.9),
        ("flan-t5-xxl", 11.1),
        ("dolphin-2.9-llama3-8b", 8.03),
    ],
)
def test_parameters_are_about_those_published(name: str, billions: float) -> None:
    assert shape(SEED[name]).parameters / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("llama-3-8b", 128 * 1024),  # 2 x 32 layers x 8 heads x 128 x 2 bytes
        ("llama-2-7b", 512 * 1024),  # 32 heads
        ("mistral-7b", 128 * 1024),  # as if the window did not slide
        ("llama-2-70b", 80 * 1024),  # 2 x 80 x 8 x 128 x 2, over 4 GPUs
        ("falcon-7b", 8 * 1024),  # one head of 64
        ("falcon-40b", 60 * 1024),  # 2 x 60 x 8 x 64 x 2, over 2
        ("mpt-7b", 512 * 1024),
        ("phi-3-mini-4k-instruct", 384 * 1024),  # heads of 96
        ("llm-jp-13b-instruct-full", 800 * 1024),
        ("flan-t5-xxl", 384 * 1024),  # 24 decoder layers of 64 heads of 64
    ],
)
def test_cache_of_a_token(name: str, per_token: int) -> None:
    assert need(SEED[name], shape(SEED[name])).kv_per_token == per_token


def test_the_need_is_the_sum_of_its_parts() -> None:
    model = spec()
    found = need(model, shape(model))
    # A layer: q 64², k and v 64·32 each, o 64², gate, up and down 64·96 each, two norms of 64.
    layer = 64**2 + 2 * 64 * 32 + 64**2 + 3 * 64 * 96 + 2 * 64
    assert found.parameters == 2 * layer + 2 * 100 * 64 + 64
    assert found.weights == 2 * found.parameters
    assert found.kv_per_token == 2 * 2 * 2 * 16 * 2
    assert found.kv_cache == 1000 * found.kv_per_token
    assert found.lora == 0
    assert found.total == found.weights + found.kv_cache + OVERHEAD
    assert found.tokens_in(found.total) == 1000
    assert found.tokens_in(0) == 0


def test_lora_slots() -> None:
    model = spec(lora={"max_loaded": 3, "max_rank": 8})
    sides = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 96)
    slot = 8 * (2 * sides + 2 * (100 + 64))
    assert need(model, shape(model)).lora == (3 + 1) * slot * 2


def test_a_split_lora_factor_is_split_and_the_other_whole() -> None:
    assert Linear(10, 40, "outputs").lora_parameters(8, 4) == 8 * (10 + 10)
    assert Linear(40, 10, "inputs", count=2).lora_parameters(8, 4) == 2 * 8 * (10 + 10)


@pytest.mark.parametrize(
    ("changes", "weights", "cache"),
    [
        ({"dtype": "float32"}, 2, 2),
        ({"tensor_parallel": 2}, 1 / 2, 1 / 2),
        ({"tensor_parallel": 4}, 1 / 4, 1 / 2),  # two KV heads: each is on two GPUs
        ({"gpus": 2, "engine_args": {"pipeline_parallel_size": 2}}, 1 / 2, 1 / 2),
        ({"engine_args": {"quantization": "fp8"}}, 1 / 2, 1),
        ({"engine_args": {"kv-cache-dtype": "fp8_e5m2"}}, 1, 1 / 2),
    ],
)
def test_what_changes_the_need(changes: dict[str, Any], weights: float, cache: float) -> None:
    plain, changed = spec(), spec(**changes)
    before, after = need(plain, shape(plain)), need(changed, shape(changed))
    assert after.weights == pytest.approx(before.weights * weights, abs=1)
    assert after.kv_per_token == before.kv_per_token * cache


def test_a_checkpoint_directory_wins_over_the_entry(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], **TINY, "num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = spec(weights=str(tmp_path), architecture=None, config={})
    assert shape(model).layers == 3


def test_the_language_model_of_one_that_takes_images(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "text_config": TINY}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape(spec(weights=str(tmp_path))).layers == 2


def test_an_embedding_model_of_llamas_shape_has_no_output_head() -> None:
    whole, headless = spec(), spec(task="embed", architecture="LlamaModel")
    before, after = need(whole, shape(whole)), need(headless, shape(headless))
    assert before.parameters - after.parameters == 100 * 64
    assert after.kv_cache == before.kv_cache, "what one input takes while it is read"


# The published counts, less the pooler (a matrix of h² and a bias) that vLLM does not load.
@pytest.mark.parametrize(
    ("architecture", "layers", "hidden", "heads", "vocab", "positions", "published", "longest"),
    [
        ("BertModel", 12, 768, 12, 30_522, 512, 109_482_240, 512),
        ("BertModel", 24, 1024, 16, 30_522, 512, 335_141_888, 512),
        ("XLMRobertaModel", 24, 1024, 16, 250_002, 514, 559_890_432, 512),
    ],
)
def test_an_encoder_keeps_no_cache(
    architecture: str,
    layers: int,
    hidden: int,
    heads: int,
    vocab: int,
    positions: int,
    published: int,
    longest: int,
) -> None:
    config = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "type_vocab_size": 2 if architecture == "BertModel" else 1,
        "pad_token_id": 0 if architecture == "BertModel" else 1,
    }
    model = spec(task="embed", architecture=architecture, config=config)
    found = shape(model)
    assert found.parameters == published - hidden**2 - hidden
    assert found.longest == longest
    needed = need(model, found)
    assert needed.total == needed.weights + OVERHEAD
    assert needed.tokens_in(80 * memory.GIB) == 0


def test_a_cross_encoder_has_a_head_for_pairs() -> None:
    weights = WEIGHTS / RERANKER
    model = spec(task="score", weights=str(weights), context=256)
    with safe_open(weights / "model.safetensors", "np") as file:
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    assert shape(model).parameters == stored


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_config_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert shape(spec(weights=str(tmp_path))).layers == 2


@pytest.mark.parametrize(
    ("architecture", "config", "words"),
    [
        (None, TINY, "`architecture`"),
        ("PoemForCausalLM", TINY, "PoemForCausalLM"),
        ("LlamaForCausalLM", {}, "'hidden_size'"),
        ("LlamaForCausalLM", {**TINY, "hidden_size": "large"}, "large"),
        ("LlamaForCausalLM", {**TINY, "vocab_size": None}, "none"),
    ],
)
def test_unknown_shapes_say_what_is_missing(
    architecture: str | None, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnknownShapeError, match=words):
        shape_of(architecture, config)


def heads(heads: int, kv_heads: int, feed_forward: int = 4096) -> Shape:
    config = {
        **TINY,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": feed_forward,
        "head_dim": 16,
    }
    return shape_of("LlamaForCausalLM", config)


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [
        (heads(32, 8), 1, None),
        (heads(32, 8), 8, None),
        (heads(32, 8), 16, None),  # KV heads are repeated
        (heads(32, 8), 3, "32 attention heads"),
        (heads(24, 8), 6, "8 KV heads"),
        (heads(32, 8, 1000), 16, "feed-forward of 1000"),
    ],
)
def test_divides(shape: Shape, size: int, words: str | None) -> None:
    why = divides(shape, size)
    assert why is None if words is None else words in str(why)


def test_falcon_7b_cannot_be_split() -> None:
    falcon = shape(SEED["falcon-7b"])
    assert divides(falcon, 2) == "71 attention heads cannot be split evenly over 2 GPUs"
    assert memory.possible_splits(falcon) == [1]
    assert memory.possible_splits(shape(SEED["falcon-40b"])) == [1, 2, 4, 8, 16]


def test_the_share_of_a_gpu_is_vllms_unless_said() -> None:
    assert memory.utilization(spec()) == 0.92
    assert memory.utilization(spec(engine_args={"gpu-memory-utilization": 0.5})) == 0.5
    assert memory.utilization(spec(engine_args={"gpu_memory_utilization": "x"})) == 0.92


def test_the_longest_context_is_the_configs_where_it_says_so() -> None:
    assert shape(SEED["llama-2-7b"]).longest == 4096
    assert shape(SEED["falcon-7b"]).longest is None
    scaled = spec(config={**TINY, "max_position_embeddings": 64, "rope_scaling": {"factor": 2}})
    assert shape(scaled).longest is None
