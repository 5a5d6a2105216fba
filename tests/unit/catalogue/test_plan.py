from __future__ import annotations

from typing import Any

import pytest

from serving.catalogue.load import seed_catalogue
from serving.catalogue.memory import GIB
from serving.catalogue.plan import ModelPlan, plan, plan_model
from serving.catalogue.spec import EngineSpec

SEED = {model.id: model for model in seed_catalogue().models if isinstance(model, EngineSpec)}


def known(name: str, **changes: Any) -> EngineSpec:
    return EngineSpec.model_validate(SEED[name].model_dump() | changes)


def planned(name: str, gpu_memory_gib: float | None = 24, **changes: Any) -> ModelPlan:
    return plan_model(known(name, **changes), gpu_memory_gib)


def test_a_model_that_fits() -> None:
    found = planned("llama-3-8b-instruct")
    assert found.problems == ()
    assert found.need is not None
    assert found.need.weights / GIB == pytest.approx(14.96, abs=0.01)
    assert found.need.kv_cache == GIB
    assert found.budget == int(24 * GIB * 0.92)
    rest = found.budget - found.need.fixed
    assert found.full_contexts == pytest.approx(rest / GIB, rel=0.001)


def test_an_encoder_fits_or_not_by_its_weights() -> None:
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    more = {"intermediate_size": 4096, "vocab_size": 250_002, "max_position_embeddings": 514}
    spec = EngineSpec(
        id="embedder",
        weights="org/embedder",
        task="embed",
        context=512,
        architecture="XLMRobertaModel",
        config=sizes | more | {"pad_token_id": 1},
    )
    found = plan_model(spec, 24)
    assert (found.problems, found.full_contexts) == ((), None)
    (problem,) = plan_model(spec, 2).problems
    assert problem.startswith("gpu_memory_gib: the model does not fit: without any cache it needs")
    (problem,) = plan_model(spec.model_copy(update={"context": 514}), 24).problems
    assert "write `context: 512`" in problem


def test_falcon_7b_is_refused_with_tensor_parallel_2() -> None:
    (problem,) = planned("falcon-7b", tensor_parallel=2).problems
    assert problem == (
        "tensor_parallel: cannot be 2: 71 attention heads cannot be split evenly over 2 GPUs; "
        "it can be 1"
    )


def test_nor_without_gpus_at_all() -> None:
    (problem,) = planned("falcon-7b", gpus=0, tensor_parallel=2).problems
    assert problem.startswith("tensor_parallel: cannot be 2: 71 attention heads")
    assert planned("falcon-7b", gpus=0).problems == ()


def test_the_transformers_engine_is_not_spread_over_gpus() -> None:
    (problem,) = planned("flan-t5-xxl", 16).problems
    assert "tensor_parallel" not in problem
    assert "use GPUs of 40 GiB" in problem


def test_a_context_that_does_not_fit_is_refused_with_the_largest_that_does() -> None:
    (problem,) = planned("llama-3-1-8b-instruct", context=131_072).problems
    assert problem.startswith("context: 131072 does not fit: it needs 32.9 GiB a GPU, and 22.1 of")
    assert "`context: 42496`" in problem
    assert "`tensor_parallel: 2` fits it as it is" in problem
    assert "so do GPUs of 40 GiB" in problem
    assert planned("llama-3-1-8b-instruct", context=42_496).problems == ()
    assert planned("llama-3-1-8b-instruct", context=42_496 + 256).problems != ()
    assert planned("llama-3-1-8b-instruct", context=131_072, tensor_parallel=2).problems == ()
    assert planned("llama-3-1-8b-instruct", 40, context=131_072).problems == ()


def test_weights_that_do_not_fit_are_refused() -> None:
    (problem,) = planned("llama-3-70b-instruct", 80, tensor_parallel=1).problems
    assert problem.startswith("gpu_memory_gib: the model does not fit: without any cache it needs")
    assert "`tensor_parallel: 2`" in problem


def test_there_may_be_no_way_to_fit() -> None:
    (problem,) = planned("falcon-7b", 8, context=2**40).problems
    assert "quantised checkpoint" in problem


def test_a_context_beyond_the_models_is_refused() -> None:
    (problem,) = planned("llama-2-7b", context=8192).problems
    assert problem == (
        "context: 8192 is more than the 4096 the model was made for; write `context: 4096`"
    )
    stretched = {"hf_overrides": {"rope_parameters": {}}}
    assert planned("llama-2-7b", context=8192, engine_args=stretched).problems == ()


def test_fewer_gpus_than_it_is_split_over() -> None:
    (problem,) = planned("llama-2-7b", tensor_parallel=2, gpus=1).problems
    assert "write `gpus: 2`" in problem


def test_every_problem_is_told() -> None:
    assert len(planned("falcon-7b", tensor_parallel=2, gpus=1).problems) == 2


def test_the_engines_share_of_the_gpu_counts() -> None:
    arguments = {"gpu_memory_utilization": 0.5}
    assert planned("llama-3-8b-instruct", engine_args=arguments).problems != ()


def test_unknown_sizes_are_no_refusal() -> None:
    spec = EngineSpec.model_validate({"id": "m", "weights": "org/m", "context": 128})
    found = plan_model(spec, 24)
    assert (found.need, found.problems) == (None, ())
    assert found.unknown is not None


def test_unstated_memory_is_no_refusal() -> None:
    found = planned("llama-3-8b", None)
    assert found.need is not None
    assert (found.budget, found.full_contexts, found.problems) == (None, None, ())


def test_a_model_on_cpu_needs_no_gpu() -> None:
    found = planned("llama-3-8b", 24, gpus=0)
    assert (found.gpus, found.gpu_memory_gib, found.need) == (0, None, None)
    assert plan([found.spec]).gpus == {}


def test_gpus_are_counted_by_their_memory_over_replicas() -> None:
    names = ["llama-3-70b-instruct", "llama-3-8b", "mixtral-8x7b"]
    found = plan([known(name, replicas=2) for name in names] + [known("flan-t5-xxl")])
    assert found.gpus == {24: 2, 40: 1, 80: 12}
    assert found.fits


def test_one_memory_for_all() -> None:
    specs = [known("llama-3-8b"), known("flan-t5-xxl")]
    assert plan(specs, 80).gpus == {80: 2}
    assert not plan(specs, 8).fits
