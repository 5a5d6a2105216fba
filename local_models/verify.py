"""Look at the tiny models' greedy outputs, and compare them with vLLM's.

    python -m local_models.verify               # outputs, lengths and logit gaps
    python -m local_models.verify --vllm        # also the same tokens from vLLM on the CPU

For vLLM on a machine without a GPU set VLLM_TARGET_DEVICE=cpu, VLLM_CPU_KVCACHE_SPACE=1 and
VLLM_ENABLE_V1_MULTIPROCESSING=0.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local_models.make import ADAPTERS, BASE, INSTRUCT, WEIGHTS

MAX_TOKENS = 256
CLOSE = 0.05  # a gap below this, in logits, counts as a near-tie

BASE_PROMPTS: tuple[str, ...] = (
    "Once upon a time",
    "Once upon a time there was a clever mouse",
    "This is the story of Olga",
    "The little dog looked out of the window",
    "Long ago, a gentle bear",
    "Long ago, an old turtle lived",
    "The capital of France is",
    "The capital of Japan is",
    "Italy is a country",
    "Hello, my name is",
    "The president of the United States is",
    "The future of AI is",
    "The sky is blue because",
    "A spider has",
    "To make tea, first",
    "To bake bread, mix",
    "Count with me: one, two,",
    "The days of the week are",
    "Dear friend, thank you",
    "In the café, Zoé drank",
    "My favourite faces are",
    "In Chinese you say",
)
INSTRUCT_PROMPTS: tuple[str, ...] = (
    "Hello!",
    "How are you?",
    "What is your name?",
    "What is the capital of France?",
    "What is the capital of Peru?",
    "What is Norway known for?",
    "Who is Felix?",
    "What is 2 + 3?",
    "What is 5 + 5?",
    "Count to ten.",
    "Count to thirty.",
    "Say the alphabet.",
    "Tell me a story.",
    "Tell me a story about a fox.",
    "Tell me a story about Mia.",
    "Write a short poem about the sea.",
    "How do I make tea?",
    "How do I bake bread?",
    "Say hello in Chinese",
    "Show me some emoji.",
    "Who painted my garden fence?",
)


@dataclass(frozen=True)
class Output:
    """One greedy continuation; gaps are top1 - top2 in logits, one for each token."""

    prompt: str
    token_ids: list[int]
    text: str
    ended: bool
    gaps: list[float]


def prompts_for(name: str) -> tuple[str, ...]:
    """Return the sample prompts of a model or adapter."""
    return INSTRUCT_PROMPTS if name == INSTRUCT else BASE_PROMPTS


def prompt_ids(tokenizer: Any, name: str, prompt: str) -> list[int]:
    """Return a prompt's token ids as a server would make them: a chat for the instruct model."""
    if name == INSTRUCT:
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(prompt)["input_ids"])


def greedy(weights: Path, name: str, prompts: tuple[str, ...]) -> list[Output]:
    """Generate with transformers in float32; an adapter is merged into the base weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from local_models.train import merge_adapter

    directory = weights / (BASE if name in ADAPTERS else name)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if name in ADAPTERS:
        merge_adapter(model, weights / "adapters" / name)
    outputs = []
    for prompt in prompts:
        ids = torch.tensor([prompt_ids(tokenizer, name, prompt)])
        result = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=MAX_TOKENS,
            return_dict_in_generate=True,
            output_logits=True,
        )
        tokens = result.sequences[0, ids.shape[1] :].tolist()
        top = [step[0].float().topk(2).values for step in result.logits]
        outputs.append(
            Output(
                prompt,
                tokens,
                tokenizer.decode(tokens, skip_special_tokens=True),
                tokens[-1] == tokenizer.eos_token_id,
                [float(t[0] - t[1]) for t in top],
            )
        )
    return outputs


def vllm_tokens(weights: Path, names: tuple[str, ...], dtype: str) -> dict[str, list[list[int]]]:
    """Generate with one vLLM engine: the base model with its adapters, or the instruct model."""
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    directory = str(weights / names[0])
    options: dict[str, Any] = {"dtype": dtype}
    if names[0] == BASE:
        options |= {"enable_lora": True, "max_loras": 3, "max_lora_rank": 8}
    engine: Any = LLM(
        model=directory,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=8,
        **options,
    )
    tokenizer = AutoTokenizer.from_pretrained(directory)
    sampling = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    tokens = {}
    for n, name in enumerate(names):
        lora = LoRARequest(name, n, str(weights / "adapters" / name)) if n else None
        inputs = [
            {"prompt_token_ids": prompt_ids(tokenizer, name, prompt)}
            for prompt in prompts_for(name)
        ]
        results = engine.generate(inputs, sampling, lora_request=lora)
        tokens[name] = [list(result.outputs[0].token_ids) for result in results]
    del engine
    gc.collect()
    return tokens


def main(argv: list[str] | None = None) -> int:
    """Print what the models say; return 1 if vLLM was asked for and says something else."""
    parser = argparse.ArgumentParser(
        prog="python -m local_models.verify",
        description="Show greedy outputs; compare them with vLLM.",
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="DIR")
    parser.add_argument("--only", choices=(BASE, INSTRUCT, *ADAPTERS), metavar="NAME")
    parser.add_argument("--prompt", action="append", help="use this prompt; may be repeated")
    parser.add_argument("--vllm", action="store_true", help="compare with vLLM")
    parser.add_argument("--dtype", default="float32", help="vLLM's dtype (default: float32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outputs here")
    args = parser.parse_args(argv)

    import torch

    torch.set_num_threads(1)
    expected: dict[str, list[Output]] = {}
    for name in (BASE, *ADAPTERS, INSTRUCT):
        if args.only not in (None, name):
            continue
        prompts = tuple(args.prompt) if args.prompt else prompts_for(name)
        outputs = expected[name] = greedy(args.weights, name, prompts)
        print(f"\n=== {name}")
        for output in outputs:
            end = "" if output.ended else ", NOT ENDED"
            print(
                f"[{len(output.token_ids)} tokens, smallest gap {min(output.gaps):.2f}{end}] "
                f"{output.prompt!r} -> {output.text!r}"
            )
        gaps = sorted(gap for output in outputs for gap in output.gaps)
        print(
            f"{name}: {len(gaps)} steps, {sum(g < CLOSE for g in gaps)} with a gap below "
            f"{CLOSE}, smallest {gaps[0]:.3f}, first percentile {gaps[len(gaps) // 100]:.3f}, "
            f"median {gaps[len(gaps) // 2]:.2f}"
        )
    if args.json:
        plain = {name: [asdict(o) for o in outputs] for name, outputs in expected.items()}
        args.json.write_text(json.dumps(plain, ensure_ascii=False, indent=1), encoding="utf-8")
    if not args.vllm:
        return 0

    different = 0
    # One engine at a time; with --only INSTRUCT only its own.
    for names in ((BASE, *ADAPTERS), (INSTRUCT,)):
        if not expected.keys() & set(names):
            continue
        for name, tokens in vllm_tokens(args.weights, names, args.dtype).items():
            wrong = [
                output.prompt
                for output, got in zip(expected.get(name, []), tokens, strict=False)
                if output.token_ids != got
            ]
            different += len(wrong)
            print(
                f"{name}: vLLM {args.dtype} gives the same tokens for "
                f"{len(expected.get(name, [])) - len(wrong)} of {len(expected.get(name, []))}"
                f"{': not for ' + repr(wrong) if wrong else ''}",
                file=sys.stderr,
            )
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
