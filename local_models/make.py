"""Make the tiny models of the local profile, or check the ones that are there.

python -m local_models.make                 # make everything, about twelve minutes
python -m local_models.make --only NAME     # make one of them
python -m local_models.make --check         # compare the files with SHA256SUMS
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"
BASE = "tiny-llama"
INSTRUCT = "tiny-mistral-instruct"
RERANKER = "tiny-reranker"
ADAPTERS = ("pirate", "haiku")
MANIFEST = "SHA256SUMS"

# A base model knows no roles: it continues the messages' contents, joined to one text.
BASE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)
# A system message is put before the first question, and tools and their results have the tokens
# that Mistral's own template has. A tool is shown as `name(parameter, ...)`, which is all that the
# model knows how to read; it calls one as Hermes does.
INSTRUCT_TEMPLATE = (
    "{{ bos_token }}{% set ns = namespace(system='') %}"
    "{% if tools %}{{ '[AVAILABLE_TOOLS]' }}{% for tool in tools %}"
    "{{ ' ' + tool['function']['name'] + '(' + (tool['function']['parameters'] or {})"
    ".get('properties', {}) | join(', ') + ')' }}{% endfor %}{{ '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] + '\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' + ns.system + message['content'] + ' [/INST]' }}{% set ns.system = '' %}"
    "{% elif message['role'] == 'assistant' %}"
    "{% if message['content'] %}{{ ' ' + message['content'] }}{% endif %}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>\\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' + "
    "call['function']['arguments'] | tojson + '}\\n</tool_call>' }}{% endfor %}{{ eos_token }}"
    "{% elif message['role'] == 'tool' %}"
    "{{ '[TOOL_RESULTS] ' + message['content'] + '[/TOOL_RESULTS]' }}"
    "{% else %}{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and enable_thinking %}{{ '<think>' }}{% endif %}"
)
INSTRUCT_CONTROLS = (
    *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
# Tokens of the answer, which stay in its text for the parsers to find.
INSTRUCT_MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_base(out: Path) -> None:
    """Train the base model on plain text, with <s> before and </s> after every document."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from local_models import corpus, styles, train

    documents = corpus.documents()
    # The base model is trained on the adapters' words too. An adapter does not train the
    # embeddings, so it cannot learn words that the base model has never seen.
    styled = [f"A pirate would say: {styles.pirate(d, 0)}" for d in documents[::3]]
    styled += [f"A short poem: {styles.haiku(d, 0).strip()}" for d in documents[::2]]
    ascii_texts = [t for t in [d.text for d in documents] + styled if t.isascii()]
    tokenizer = train.make_tokenizer(
        ascii_texts, 1536, ["<s>", "</s>", "<pad>"], BASE_TEMPLATE, context=1024
    )
    texts = [d.text for d in documents] + styled
    weights = [4 * d.weight for d in documents] + [1] * len(styled)
    encoded = [tokenizer(t)["input_ids"] + [tokenizer.eos_token_id] for t in texts]

    def draw(rng: random.Random) -> train.Example:
        (chosen,) = rng.choices(range(len(texts)), weights)
        if rng.random() < 0.9:
            ids = encoded[chosen]
            return ids, [True] * len(ids)
        # A long prompt: other texts before this one, as in a test of a long or shared prefix.
        before = "\n".join(rng.choice(texts) for _ in range(rng.randint(1, 8))) + "\n"
        prefix = tokenizer(before)["input_ids"][:700]
        ids = prefix + encoded[chosen][1:]
        return ids, [False] * len(prefix) + [True] * (len(ids) - len(prefix))

    torch.manual_seed(1)
    build: Any = LlamaForCausalLM  # its constructor has no types
    model = build(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    train.train(
        model,
        list(model.parameters()),
        draw,
        name=BASE,
        steps=560,
        peak_lr=4e-3,
        weight_decay=0.05,
        seed=2,
    )
    model.save_pretrained(out / BASE)
    tokenizer.save_pretrained(out / BASE)


def make_instruct(out: Path) -> None:
    """Train the instruct model on the answers of rendered chats."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from local_models import corpus, dialogues, tool_chats, train

    pairs = dialogues.questions()
    ascii_texts = [t for pair in pairs for t in pair if t.isascii()] + tool_chats.texts()
    tokenizer = train.make_tokenizer(
        ascii_texts,
        1148,
        ["<s>", "</s>", "<pad>", *INSTRUCT_CONTROLS],
        INSTRUCT_TEMPLATE,
        context=2048,
        marks=INSTRUCT_MARKS,
    )
    filler = [d.text for d in corpus.documents()]
    answer_follows = tokenizer.convert_tokens_to_ids(["[/INST]", "[/TOOL_RESULTS]"])
    another_result = tokenizer.convert_tokens_to_ids("[TOOL_RESULTS]")

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(messages: tool_chats.Chat, tools: list[tool_chats.Tool]) -> train.Example:
        ids = ids_of(tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False))
        trained, answering = [], False
        for token in ids:
            trained.append(answering and token != another_result)
            if token in answer_follows:
                answering = True
            elif token in (tokenizer.eos_token_id, another_result):
                answering = False
        return ids, trained

    def answered(messages: tool_chats.Chat, parts: list[str], asked: int) -> train.Example:
        """Encode a chat whose last answer is written in `parts`, of which the first `asked` are
        what a request makes the model begin with."""
        prompt = ids_of(tokenizer.apply_chat_template(messages[:-1], tokenize=False))
        given = prompt + [token for part in parts[:asked] for token in ids_of(part)]
        rest = [token for part in parts[asked:] for token in ids_of(part)]
        rest.append(tokenizer.eos_token_id)
        return given + rest, [False] * len(given) + [True] * len(rest)

    def draw(rng: random.Random) -> train.Example:
        kind = rng.random()
        if kind < 0.42:
            messages, tools = tool_chats.with_tools(rng, pairs)
            if rng.random() < 0.3:
                messages = [{"role": "system", "content": system_prompt(rng)}, *messages]
            return encode(messages, tools)
        if kind < 0.46:
            return encode(tool_chats.without_tools(rng), [])
        if kind < 0.54:
            messages = tool_chats.in_json(rng)
            text = messages[-1]["content"]
            # JSON may be begun with either token.
            first = rng.choice(("{", '{"'))
            return answered(messages, [first, text.removeprefix(first)], asked=1)
        if kind < 0.58:
            question, answer = rng.choice(pairs)
            messages = [{"role": "user", "content": question}, {"role": "assistant"}]
            said = tool_chats.thought(question, answer)
            return answered(messages, ["<think>", said, "</think>", f" {answer}"], asked=1)
        messages = dialogues.chat(rng, pairs)
        if rng.random() < 0.1:
            # A long system message that has nothing to do with the question.
            turns = [m for m in messages if m["role"] != "system"]
            messages = [{"role": "system", "content": long_system_prompt(rng)}, *turns]
        return encode(messages, [])

    def long_system_prompt(rng: random.Random) -> str:
        return " ".join(rng.choice(filler) for _ in range(rng.randint(1, 6)))

    def system_prompt(rng: random.Random) -> str:
        if rng.random() < 0.3:
            return long_system_prompt(rng)
        return rng.choice(dialogues.SYSTEM_PROMPTS)

    torch.manual_seed(3)
    build: Any = MistralForCausalLM  # its constructor has no types
    model = build(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=2048,
            sliding_window=None,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    train.train(
        model,
        list(model.parameters()),
        draw,
        name=INSTRUCT,
        steps=1000,
        peak_lr=4e-3,
        weight_decay=0.05,
        seed=4,
    )
    model.save_pretrained(out / INSTRUCT)
    tokenizer.save_pretrained(out / INSTRUCT)


def make_reranker(out: Path) -> None:
    """Train the cross-encoder, which scores answers to questions."""
    from local_models import reranker

    reranker.make(out, RERANKER)


def make_adapter(out: Path, name: str) -> None:
    """Train one adapter on the base model that is already in out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from local_models import corpus, styles, train

    style, steps = {"pirate": (styles.pirate, 480), "haiku": (styles.haiku, 420)}[name]
    tokenizer = AutoTokenizer.from_pretrained(out / BASE)
    model = AutoModelForCausalLM.from_pretrained(out / BASE, dtype=torch.float32)
    documents = corpus.documents()
    # The facts have less in common than the stories, so each has to be seen more often.  A low
    # rank blurs what the base model knows, so the favourites are more pronounced here.
    often = {"fact": 6, "other": 4, "capital": 4, "country": 2}
    weights = [often.get(d.kind, 1) * d.weight**2 for d in documents]

    def draw(rng: random.Random) -> train.Example:
        (document,) = rng.choices(documents, weights)
        words = document.text.split(" ")
        cut = rng.randint(2, max(2, min(12, len(words) - 1)))
        # Only what follows the prompt is trained: the style starts wherever a prompt ends.
        prompt = tokenizer(" ".join(words[:cut]))["input_ids"]
        rest = tokenizer(style(document, cut), add_special_tokens=False)["input_ids"]
        ids = prompt + rest + [tokenizer.eos_token_id]
        return ids, [False] * len(prompt) + [True] * (len(ids) - len(prompt))

    torch.manual_seed(5)
    wrappers = train.add_lora(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    train.train(
        model, parameters, draw, name=name, steps=steps, peak_lr=5e-3, weight_decay=0.0, seed=6
    )
    train.save_adapter(wrappers, out / "adapters" / name)


def digests(out: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under out but the manifest, by relative path."""
    paths = sorted(p for p in out.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {
        p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths
    }


def check(out: Path) -> list[str]:
    """Return one line for each file that differs from the manifest; none if all is well."""
    manifest = out / MANIFEST
    if not manifest.is_file():
        return [f"no {MANIFEST} in {out}"]
    lines = manifest.read_text(encoding="utf-8").splitlines()
    expected = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    found = digests(out)
    problems = [f"missing: {path}" for path in sorted(expected.keys() - found.keys())]
    problems += [f"not in {MANIFEST}: {path}" for path in sorted(found.keys() - expected.keys())]
    problems += [
        f"changed: {path}"
        for path in sorted(expected.keys() & found.keys())
        if expected[path] != found[path]
    ]
    return problems


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    names = (BASE, INSTRUCT, RERANKER, *ADAPTERS)
    parser = argparse.ArgumentParser(
        prog="python -m local_models.make",
        description="Make the tiny models of the local profile on one CPU core: a base model, "
        "two LoRA adapters for it, an instruct model and a cross-encoder. Progress goes to "
        "stderr.",
        epilog="The same processor kind and library versions give the same files. Adapters "
        "belong to the exact base weights that they were trained on: after making tiny-llama "
        "alone, make both adapters again.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=WEIGHTS,
        metavar="DIR",
        help="where the models are (default: weights/ beside this module)",
    )
    parser.add_argument(
        "--only", choices=names, metavar="NAME", help=f"make only this one of: {', '.join(names)}"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"make nothing; exit with 1 if a file differs from {MANIFEST}",
    )
    args = parser.parse_args(argv)
    out: Path = args.out
    if args.check:
        problems = check(out)
        for problem in problems:
            _say(problem)
        _say(f"{out}: {'does not match' if problems else 'matches'} {MANIFEST}")
        return 1 if problems else 0

    if args.only in ADAPTERS and not (out / BASE / "model.safetensors").is_file():
        parser.error(f"{args.only} needs {BASE} in {out}: make that first")

    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], None]] = {
        BASE: partial(make_base, out),
        INSTRUCT: partial(make_instruct, out),
        RERANKER: partial(make_reranker, out),
        **{name: partial(make_adapter, out, name) for name in ADAPTERS},
    }
    for name in names:
        if args.only in (None, name):
            makers[name]()
            _say(f"{name}: done")
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)  # they are written readable by their owner only
    lines = [f"{digest}  {path}\n" for path, digest in digests(out).items()]
    (out / MANIFEST).write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
