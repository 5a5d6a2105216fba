from __future__ import annotations

from pathlib import Path

import pytest

from serving.catalogue.load import CatalogueError, load_catalogue, seed_catalogue
from serving.catalogue.spec import EngineSpec, RetiredSpec, UpstreamSpec

GOOD = """
models:
  - id: tiny
    weights: ./weights/tiny
    context: 256
    lora: {max_loaded: 2}
  - id: tiny.pirate
    kind: adapter
    base: tiny
    weights: /elsewhere/pirate
aliases:
  latest: tiny.pirate
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


def refusal(file: Path) -> str:
    with pytest.raises(CatalogueError) as caught:
        load_catalogue(file)
    return str(caught.value)


def test_a_good_file(file: Path) -> None:
    file.write_text(GOOD)
    catalogue = load_catalogue(file)
    assert catalogue.engines[0].kind == "engine"
    assert catalogue.engines[0].weights == str(file.parent / "weights/tiny")
    assert catalogue.adapters[0].weights == "/elsewhere/pirate"
    assert catalogue.aliases == {"latest": "tiny.pirate"}


def test_a_repository_id_is_no_path(file: Path) -> None:
    file.write_text(GOOD.replace("./weights/tiny", "org/tiny"))
    assert load_catalogue(file).engines[0].weights == "org/tiny"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("context: 256", "context: many", ("model 'tiny'", "context")),
        ("context: 256", "", ("model 'tiny'", "context", "required")),
        ("max_loaded: 2", "max_loaded: 0", ("model 'tiny'", "lora.max_loaded")),
        ("context: 256", "context: 256\n    colour: red", ("model 'tiny'", "colour")),
        ("kind: adapter", "kind: poem", ("model 'tiny.pirate'", "kind")),
        ("id: tiny\n", "\n", ("model 'number 1'", "id")),
        ("base: tiny", "base: huge", ("tiny.pirate", "huge")),
        ("latest: tiny.pirate", "latest: gone", ("latest", "gone")),
    ],
)
def test_a_finding_names_file_model_and_field(
    file: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert GOOD.count(old) >= 1
    file.write_text(GOOD.replace(old, new, 1))
    message = refusal(file)
    for word in (str(file), *words):
        assert word in message


def test_every_finding_is_told(file: Path) -> None:
    file.write_text("models: [{id: a, weights: w}, {id: b, weights: w}]")
    assert len(refusal(file).splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", "models", "models: 5", "models: {a: b}", "models: [5]", "models: [", "models:"],
)
def test_a_file_of_another_shape(file: Path, text: str) -> None:
    file.write_text(text)
    assert str(file) in refusal(file)


def test_a_file_that_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00models")
    assert str(file) in refusal(file)


def test_a_missing_file(file: Path) -> None:
    assert refusal(file) == f"{file}: No such file or directory"


# Over the known models


def write(file: Path, *items: str, rest: str = "") -> Path:
    file.write_text("models:\n" + "".join(f"  - {item}\n" for item in items) + rest)
    return file


def engine(file: Path, *items: str) -> EngineSpec:
    found = load_catalogue(write(file, *items)).models[0]
    assert isinstance(found, EngineSpec)
    return found


def known(name: str) -> EngineSpec:
    (found,) = (model for model in seed_catalogue().models if model.id == name)
    assert isinstance(found, EngineSpec)
    return found


def test_named_models_come_first_and_all_others_follow(file: Path) -> None:
    catalogue = load_catalogue(write(file, "mistral-7b", "gpt-4o", "llama-7b"))
    assert [model.id for model in catalogue.deployed] == ["mistral-7b", "gpt-4o", "llama-7b"]
    assert catalogue.models[:3] == catalogue.deployed
    assert {model.id for model in catalogue.models} == {m.id for m in seed_catalogue().models}


def test_a_name_deploys_the_known_entry_as_it_is(file: Path) -> None:
    name = "llama-3-8b-instruct"
    assert engine(file, name) == known(name).model_copy(update={"deployed": True})


def test_fields_override_the_known_entrys_one_by_one(file: Path) -> None:
    before = known("llama-3-1-8b-instruct")
    after = engine(
        file, "{id: llama-3-1-8b-instruct, context: 8192, lora: {max_loaded: 9}, dtype: float16}"
    )
    assert (after.context, after.dtype, after.deployed) == (8192, "float16", True)
    assert after.lora is not None
    assert after.lora.max_loaded == 9
    changed = {"context", "dtype", "lora", "deployed"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)


def test_a_field_is_replaced_whole(file: Path) -> None:
    after = engine(file, "{id: falcon-7b, config: {vocab_size: 5}}")
    assert after.config == {"vocab_size": 5}
    assert engine(file, "{id: llama-7b, lora: null}").lora is None


def test_an_override_can_stay_undeployed(file: Path) -> None:
    catalogue = load_catalogue(write(file, "{id: falcon-7b, context: 64, deployed: false}"))
    assert catalogue.deployed == ()
    assert catalogue.models[0].id == "falcon-7b"


def test_other_weights_are_no_longer_the_known_repository(file: Path) -> None:
    after = engine(file, "{id: falcon-7b, weights: ./falcon}")
    assert after.weights == str(file.parent / "falcon")
    assert after.certainty is None
    assert after.architecture == "FalconForCausalLM"
    assert engine(file, "{id: falcon-7b, weights: a/b, certainty: known}").certainty == "known"
    name = "Meta-Llama-3-8B-Instruct-RMU"
    assert engine(file, f"{{id: {name}, context: 64}}").chat_template is not None
    after = engine(file, f"{{id: {name}, weights: ./mine}}")
    assert (after.chat_template, after.prompt_style) == (None, "chat")


def test_an_id_may_become_another_kind_and_inherits_nothing(file: Path) -> None:
    found = engine(file, "{id: gpt-4, kind: engine, weights: org/w, context: 64}")
    assert (found.id, found.deployed, found.note) == ("gpt-4", True, None)


def test_a_retired_entry_can_be_corrected(file: Path) -> None:
    found = load_catalogue(write(file, "{id: gpt-4, successor: better, retired_on: 2026-10-24}"))
    spec = found.models[0]
    assert isinstance(spec, RetiredSpec)
    assert (spec.successor, spec.retired_on, spec.provider) == ("better", "2026-10-24", "openai")
    assert found.deployed == ()


@pytest.mark.parametrize(
    ("item", "line", "words"),
    [
        ("", 2, ("is empty",)),
        ("gpt-4", 2, ("was retired", "`aliases: {gpt-4: ")),
        ("{id: gpt-4}", 2, ("was retired", "remove it")),
        ("{id: gpt-4, deployed: true}", 2, ("was retired",)),
        ("{id: mpt-7b, tensor_parallel: 2}", 2, ("mpt-7b", "runs on one GPU")),
        ("{id: mpt-7b, vision: true}", 2, ("takes no images",)),
        ("{id: mötley, weights: w, context: 64}", 2, ("id",)),
    ],
)
def test_what_cannot_be_meant_is_refused(
    file: Path, item: str, line: int, words: tuple[str, ...]
) -> None:
    message = refusal(write(file, item))
    for word in (f"{file}:{line}: ", *words):
        assert word in message


@pytest.mark.parametrize("url", ["https://[foo", "https://host:abc/v1", "https://host:99999/v1"])
def test_a_provider_that_cannot_be_reached_is_refused(file: Path, url: str) -> None:
    rest = f"providers:\n  openai:\n    base_url: '{url}'\n"
    assert f"{file}:5: " in refusal(write(file, "llama-7b", rest=rest))


def test_a_year_need_not_be_quoted(file: Path) -> None:
    item = "{id: gone-1, kind: retired, provider: openai, retired_on: 2024}"
    found = load_catalogue(write(file, item)).models[0]
    assert isinstance(found, RetiredSpec)
    assert (found.retired_on, found.deployed) == ("2024", False)


def test_an_alias_may_take_a_retired_or_undeployed_id(file: Path) -> None:
    rest = "aliases: {gpt-4: mistral-7b, llama-7b: mistral-7b}"
    catalogue = load_catalogue(write(file, "mistral-7b", rest=rest))
    assert set(catalogue.aliases) == {"gpt-4", "llama-7b"}


def test_providers_are_laid_over_the_built_in_ones(file: Path) -> None:
    rest = """\
providers:
  openai: {base_url: "http://127.0.0.1:9/v1"}
  mine: {base_url: "https://llm.example.com/v1", api_key_env: MY_KEY}
"""
    item = "{id: m, kind: upstream, provider: mine}"
    catalogue = load_catalogue(write(file, item, rest=rest))
    assert set(catalogue.providers) == {"openai", "anthropic", "gemini", "mine"}
    assert catalogue.providers["openai"].base_url == "http://127.0.0.1:9/v1"
    assert catalogue.providers["openai"].api_key_env == "OPENAI_API_KEY"
    assert isinstance(catalogue.models[0], UpstreamSpec)


BAD = """\
models:
  - llama-3-8b-instuct
  - gpt-4
  - id: falcon-7b
    context: 99999
    context: many
  - id: mine
    kind: poem
  - 5
  - id: other
    wieghts: x
    lora: {max_rnk: 3}
  - id: gpt-4-0613
    weights: x
providers:
  openai: {api_key: sk-secret}
router: {replicas: 0}
imags: {}
aliases: {}
"""


def test_every_mistake_is_told_with_line_model_field_and_fix(file: Path) -> None:
    file.write_text(BAD)
    found = refusal(file)
    for line, (number, *words) in zip(
        found.splitlines(),
        [
            (2, "model 'llama-3-8b-instuct'", "the nearest are llama-3-8b-instruct"),
            (3, "model 'gpt-4'", "retired", "`aliases: {gpt-4: "),
            (6, "model 'falcon-7b': context: ", "'many'"),
            (6, "the key `context` is already on line 5; remove one"),
            (8, "model 'mine': kind: 'poem' is no kind; one of engine, adapter"),
            (9, "model 'number 5': is neither an ID nor a mapping"),
            (10, "model 'other': context: is required"),
            (10, "model 'other': weights: is required"),
            (11, "model 'other': wieghts: is no field; did you mean `weights`?"),
            (12, "model 'other': lora.max_rnk: is no field; did you mean `max_rank`?"),
            (14, "model 'gpt-4-0613': weights: ", "write `kind: engine`"),
            (16, "providers.openai.api_key: is no field; did you mean `api_key_env`?"),
            (17, "router.replicas: ", "greater than or equal to 1"),
            (18, "imags: is no field; did you mean `images`?"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{file}:{number}: ")
        for word in words:
            assert word in line
    assert "sk-secret" not in found


REFERENCES = """\
models:
  - zephyr-cat-merged
  - id: q
    provider: nope
    kind: upstream
  - falcon-7b
  - falcon-7b
  - {id: a, kind: adapter, weights: w, base: falcon-7b}
  - {id: v, weights: w, context: 64, lora: {}, vision: true}
  - {id: b, kind: adapter, weights: w, base: v, chat_template: "{{ t }}"}
aliases:
  gpt-4: gpt-4o
  x: gpt-3.5-turbo
  falcon-7b: q
"""


def test_every_misreference_is_told_with_its_line(file: Path) -> None:
    file.write_text(REFERENCES)
    for line, (number, words) in zip(
        refusal(file).splitlines(),
        [
            (2, "model 'zephyr-cat-merged': base: 'zephyr-7b-beta' is not deployed; add `- zephyr"),
            (4, "model 'q': provider: 'nope' is none of `providers:` (openai, anthropic, gemini)"),
            (7, "model 'falcon-7b': id: used twice"),
            (8, "model 'a': base: 'falcon-7b' has no `lora:`; add `lora: {}`"),
            (10, "model 'b': chat_template: an adapter of a vision model has its base's; write `"),
            (12, "alias 'gpt-4': points to 'gpt-4o', which is not deployed; add `- gpt-4o`"),
            (13, "alias 'x': points to 'gpt-3.5-turbo', which is retired"),
            (14, "alias 'falcon-7b': is also a model ID"),
        ],
        strict=True,
    ):
        assert line.startswith(f"{file}:{number}: {words}")


def test_broken_yaml_has_its_line(file: Path) -> None:
    file.write_text("models:\n  - id: [\n")
    assert refusal(file).startswith(f"{file}:3: not valid YAML: ")


def test_loading_leaves_the_known_models_as_they_are(file: Path) -> None:
    before = seed_catalogue()
    load_catalogue(write(file, "falcon-7b", "{id: llama-7b, config: {vocab_size: 1}}"))
    assert seed_catalogue() == before
    assert seed_catalogue().deployed == ()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("{id: m, weights: w, context: 64, lora: yes}", "model 'm': lora: must be a mapping"),
        ("{id: [1], weights: w, context: 64}", "model 'number 1': id: it should be a valid string"),
        ("{id: m, kind: null}", "model 'm': kind: 'None' is no kind"),
        ("{id: m, kind: [a]}", "model 'm': kind: '['a']' is no kind"),
        ("{id: m, weights: w, context: 64, 3: x}", "model 'm': 3: "),
        ("{id: has space, weights: w, context: 64}", "model 'has space': id: it should match"),
        ("{id: m, weights: w, context: 64, min_replicas: 2}", "model 'm': `min_replicas` is above"),
        (
            "{id: m, weights: w, context: 64, engine_args: {max-model-len: 5}}",
            "model 'm': engine_args: 'max-model-len' is set by the field `context`",
        ),
        (
            "{id: m, weights: w, context: 64, chat_template: ./chat.jinja}",
            "model 'm': chat_template: is no template; write the template itself (Jinja)",
        ),
        (
            "{id: m, kind: adapter, weights: w, base: b, chat_template: ''}",
            "model 'm': chat_template: is no template",
        ),
    ],
)
def test_other_mistakes(file: Path, item: str, words: str) -> None:
    write(file, item)
    assert f"{file}:2: {words}" in refusal(file)


def test_the_example_of_the_manual_is_right(file: Path) -> None:
    manual = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    file.write_text(manual.partition("```yaml\n")[2].partition("```")[0])
    catalogue = load_catalogue(file)
    assert [model.kind for model in catalogue.deployed] == [
        *("engine", "engine", "engine", "adapter", "upstream")
    ]
    assert len(catalogue.aliases) == 2


def test_so_is_that_of_the_readme(file: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    file.write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    catalogue = load_catalogue(file)
    assert {model.kind for model in catalogue.deployed} == {"engine", "adapter", "upstream"}
    assert catalogue.aliases == {"gpt-4": "llama-3-8b-instruct"}


# parsers


def test_an_unknown_parser_is_refused_with_the_known_ones(file: Path) -> None:
    file.write_text(GOOD.replace("context: 256", "context: 256\n    tool_parser: hermess"))
    message = refusal(file)
    assert message.startswith(
        f"{file}:6: model 'tiny': tool_parser: vLLM has no parser 'hermess'; "
    )
    assert "did you mean `hermes`? there are apertus, " in message
    assert ", llama3_json, " in message
    file.write_text(GOOD.replace("context: 256", "context: 256\n    reasoning_parser: hermes"))
    message = refusal(file)
    assert "model 'tiny': reasoning_parser: vLLM has no parser 'hermes'; " in message
    assert ", deepseek_r1, " in message


def test_parsers_of_a_plugin_are_the_engine_s_to_know(file: Path) -> None:
    own = """
    tool_parser: ours
    engine_args: {tool_parser_plugin: /plugins/ours.py}"""
    file.write_text(GOOD.replace("    context: 256", "    context: 256" + own))
    assert load_catalogue(file).engines[0].tool_parser == "ours"
    file.write_text(
        GOOD.replace(
            "    context: 256", f"    context: 256{own}".replace("tool_p", "reasoning_p", 1)
        )
    )
    assert "vLLM has no parser 'ours'" in refusal(file)


@pytest.mark.parametrize(
    ("argument", "field"),
    [
        ("tool_call_parser: hermes", "tool_parser"),
        ("enable-auto-tool-choice: true", "tool_parser"),
        ("reasoning-parser: qwen3", "reasoning_parser"),
    ],
)
def test_parsers_have_fields_of_their_own(file: Path, argument: str, field: str) -> None:
    file.write_text(GOOD.replace("context: 256", f"context: 256\n    engine_args: {{{argument}}}"))
    assert f"is set by the field `{field}`" in refusal(file)


def test_other_weights_do_not_keep_the_known_parser(file: Path) -> None:
    file.write_text("models: [llama-3-1-8b-instruct]")
    assert load_catalogue(file).engines[0].tool_parser == "llama3_json"
    file.write_text("models: [{id: llama-3-1-8b-instruct, weights: org/other}]")
    assert load_catalogue(file).engines[0].tool_parser is None
