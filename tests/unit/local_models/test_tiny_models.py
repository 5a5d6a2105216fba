"""The tiny models that are kept in the repository: whole, loadable, and saying words."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from local_models import dialogues, tool_chats
from local_models.make import (
    ADAPTERS,
    BASE,
    INSTRUCT,
    INSTRUCT_MARKS,
    RERANKER,
    WEIGHTS,
    check,
)
from local_models.train import merge_adapter

MODELS = (BASE, INSTRUCT)


@cache
def tokenizer_of(name: str) -> Any:
    return AutoTokenizer.from_pretrained(WEIGHTS / name)


def load(name: str) -> Any:
    directory = WEIGHTS / (BASE if name in ADAPTERS else name)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if name in ADAPTERS:
        merge_adapter(model, WEIGHTS / "adapters" / name)
    return model


def prompt_text(name: str) -> str:
    if name != INSTRUCT:
        return "Once upon a time there was a brave fox"
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text: str = tokenizer_of(name).apply_chat_template(messages, tokenize=False)
    return text


def greedy(model: Any, name: str, tokens: int = 16) -> str:
    tokenizer = tokenizer_of(BASE if name in ADAPTERS else name)
    ids = tokenizer(
        prompt_text(name), add_special_tokens=name != INSTRUCT, return_tensors="pt"
    ).input_ids
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens
    )
    text: str = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def test_files_match_the_manifest() -> None:
    assert check(WEIGHTS) == []


def test_check_names_what_is_wrong(tmp_path: Any) -> None:
    assert len(check(tmp_path)) == 1
    (tmp_path / "kept").write_text("a")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  kept\n{'0' * 64}  gone\n")
    (tmp_path / "new").write_text("b")
    assert check(tmp_path) == ["missing: gone", "not in SHA256SUMS: new", "changed: kept"]


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_fits_the_model(name: str) -> None:
    tokenizer = tokenizer_of(name)
    config = AutoConfig.from_pretrained(WEIGHTS / name)
    generation = json.loads((WEIGHTS / name / "generation_config.json").read_text())
    assert len(tokenizer) == config.vocab_size
    assert tokenizer.model_max_length == config.max_position_embeddings
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.eos_token_id == config.eos_token_id == generation["eos_token_id"]
    assert tokenizer.bos_token_id == config.bos_token_id
    assert config.head_dim % 32 == 0
    assert getattr(config, "sliding_window", None) is None


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_puts_bos_first_and_keeps_the_text(name: str) -> None:
    tokenizer = tokenizer_of(name)
    text = "Zoé said: hello, 猫! 🎉\nTwo  spaces."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in ids[1:]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    # Characters outside ASCII take several tokens, for tests of streaming.
    assert len(tokenizer("猫", add_special_tokens=False)["input_ids"]) == 3


def test_vocabularies_differ() -> None:
    assert len(tokenizer_of(BASE)) != len(tokenizer_of(INSTRUCT))
    assert tokenizer_of(BASE)("hello")["input_ids"] != tokenizer_of(INSTRUCT)("hello")["input_ids"]


def test_chat_templates_render() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    render = tokenizer_of(INSTRUCT).apply_chat_template
    assert render(messages, tokenize=False) == (
        "<s>[INST] Be brief.\n\nHi [/INST] Hello!</s>[INST] Bye [/INST]"
    )
    render = tokenizer_of(BASE).apply_chat_template
    assert render(messages, tokenize=False) == "<s>Be brief.\nHi\nHello!\nBye"


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
IN_PARIS = {"role": "user", "content": "What is the weather in Paris?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
}
CALLED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call></s>'
SUNNY = {"role": "tool", "content": "sunny"}


def test_tools_calls_and_results_render() -> None:
    render = tokenizer_of(INSTRUCT).apply_chat_template
    shown = "<s>[AVAILABLE_TOOLS] get_weather(city)[/AVAILABLE_TOOLS]"
    asked = "[INST] What is the weather in Paris? [/INST]"
    assert render([IN_PARIS], tools=[WEATHER], tokenize=False) == shown + asked
    assert render([IN_PARIS, CALL, SUNNY], tools=[WEATHER], tokenize=False) == (
        f"{shown}{asked}{CALLED}[TOOL_RESULTS] sunny[/TOOL_RESULTS]"
    )
    # A tool without parameters; no tools, no sign of them.
    bare = {"type": "function", "function": {"name": "now", "parameters": None}}
    assert "[AVAILABLE_TOOLS] now()[/AVAILABLE_TOOLS]" in render(
        [IN_PARIS], tools=[bare], tokenize=False
    )
    assert render([IN_PARIS], tokenize=False) == f"<s>{asked}"
    thinking = {"add_generation_prompt": True, "enable_thinking": True}
    assert render([IN_PARIS], tokenize=False, **thinking) == f"<s>{asked}<think>"


def test_marks_are_one_token_each_and_part_of_the_text() -> None:
    tokenizer = tokenizer_of(INSTRUCT)
    for mark in INSTRUCT_MARKS:
        (token,) = tokenizer(mark, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode([token], skip_special_tokens=True) == mark


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_fits_the_base_model(name: str) -> None:
    directory = WEIGHTS / "adapters" / name
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE
    assert config["r"] == 8
    shapes: dict[str, tuple[int, ...]] = {}
    with safe_open(WEIGHTS / BASE / "model.safetensors", "pt") as base:
        for key in sorted(base.keys()):
            path, _, leaf = key.removesuffix(".weight").rpartition(".")
            if leaf in config["target_modules"]:
                out_features, in_features = base.get_slice(key).get_shape()
                prefix = f"base_model.model.{path}.{leaf}"
                shapes[f"{prefix}.lora_A.weight"] = (8, in_features)
                shapes[f"{prefix}.lora_B.weight"] = (out_features, 8)
    with safe_open(directory / "adapter_model.safetensors", "pt") as adapter:
        keys = list(adapter.keys())
        found = {key: tuple(adapter.get_slice(key).get_shape()) for key in keys}
    assert found == shapes
    assert len(found) == 4 * 7 * 2


def test_greedy_text_is_words_repeatable_and_in_style() -> None:
    texts = {}
    for name in (*MODELS, *ADAPTERS):
        model = load(name)
        texts[name] = greedy(model, name)
        assert greedy(model, name) == texts[name]
    assert texts[INSTRUCT] == " The capital of France is Paris."
    assert texts[BASE].startswith(" named Felix.")
    assert texts["pirate"] != texts[BASE]
    assert texts["haiku"].startswith("\n")
    assert len(set(texts.values())) == len(texts)


def test_every_question_has_one_answer() -> None:
    pairs = dialogues.questions()
    assert len({question for question, _ in pairs}) == len(pairs)


def test_a_question_for_a_tool_has_the_answer_that_it_has_without() -> None:
    answers = dict(dialogues.questions())
    rng = random.Random(1)
    cases = [skill.draw(rng) for skill in tool_chats.SKILLS for _ in range(300)]
    shared = [case for case in cases if case.question in answers]
    assert shared
    for case in shared:
        assert case.plain == answers[case.question]


def test_the_instruct_model_calls_a_tool_tells_its_result_and_thinks() -> None:
    tokenizer, model = tokenizer_of(INSTRUCT), load(INSTRUCT)

    def says(messages: list[Any], **more: Any) -> str:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **more
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=40)
        said: str = tokenizer.decode(output[0, ids.shape[1] :])
        return said

    assert says([IN_PARIS], tools=[WEATHER]) == CALLED
    assert says([IN_PARIS, CALL, SUNNY], tools=[WEATHER]) == " It is sunny in Paris.</s>"
    capital = [{"role": "user", "content": "What is the capital of France?"}]
    answer = " The capital of France is Paris.</s>"
    assert says(capital, tools=[WEATHER]) == answer
    assert says(capital, enable_thinking=True) == f"I have read about this.</think>{answer}"


def test_the_cross_encoder_knows_what_answers_a_question() -> None:
    tokenizer = tokenizer_of(RERANKER)
    model = AutoModelForSequenceClassification.from_pretrained(WEIGHTS / RERANKER).eval()
    assert model.config.num_labels == 1
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.model_max_length == model.config.max_position_embeddings
    assert tokenizer("a", "b")["token_type_ids"] == [0, 0, 0, 1, 1]
    answers = ["The capital of France is Paris.", "The capital of Italy is Rome.", "I am fine."]
    inputs = tokenizer(["What is the capital of France?"] * 3, answers, padding=True)
    with torch.no_grad():
        logits = model(**{name: torch.tensor(ids) for name, ids in inputs.items()}).logits
    right, *wrong = torch.sigmoid(logits[:, 0]).tolist()
    assert right > 0.5 > 0.1 > max(wrong)
