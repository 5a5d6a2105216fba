"""Tiny random checkpoints of the architectures that vLLM serves, and what they answer.

    python -m tests.shapes DIRECTORY NAME..     # writes DIRECTORY/NAME and DIRECTORY/NAME.json

Untrained, from fixed seeds: each says nonsense, the same each time. Weights are spread widely and
everything is float32, so that no greedy step is a near-tie. `NAME.json` has Hugging Face's greedy
tokens for each prompt. A name with an adapter has a LoRA in `NAME-lora` too; `NAME-lora.json` has
the tokens of the model with the LoRA merged into it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[1] / "local_models/weights/tiny-llama"
CONTEXT = 256
MAX_TOKENS = 24
PROMPTS = ("Once upon a time", "The capital of France is", "My favourite faces are")
RANK, ALPHA = 4, 64

_COMMON = {
    "vocab_size": 1536,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}
_LLAMA_LIKE = _COMMON | {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_FALCON = _COMMON | {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bias": False,
    "alibi": False,
    "parallel_attn": True,
}
# By name: the configuration's class, its values, and the modules that its LoRA changes.
SHAPES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("LlamaConfig", _LLAMA_LIKE, ()),
    "mistral": ("MistralConfig", _LLAMA_LIKE | {"sliding_window": None}, ("q_proj", "v_proj")),
    "mixtral": ("MixtralConfig", _LLAMA_LIKE | {"num_local_experts": 4}, ()),
    "phi3": ("Phi3Config", _LLAMA_LIKE | {"num_key_value_heads": 4}, ("qkv_proj", "o_proj")),
    # One key and value head for all, as in falcon-7b.
    "falcon-7b": ("FalconConfig", _FALCON | {"multi_query": True}, ()),
    # Groups of heads and two layer norms, as in falcon-40b.
    "falcon-40b": (
        "FalconConfig", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, ()
    ),
    "gpt2": (
        "GPT2Config",
        _COMMON | {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}, ()
    ),
}  # fmt: skip


def write(name: str, directory: Path) -> None:
    """Write one checkpoint, its LoRA if it has one, and what each of them says."""
    import torch
    import transformers

    config_class, values, targets = SHAPES[name]
    config = getattr(transformers, config_class)(**values)
    torch.manual_seed(sorted(SHAPES).index(name))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(directory / name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, directory / name / file)
    _write_answers(model, directory / f"{name}.json")
    if targets:
        _write_lora(model, targets, directory / f"{name}-lora", name)
        _write_answers(model, directory / f"{name}-lora.json")


def _write_answers(model: Any, file: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    answers = {}
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt)])
        with torch.no_grad():
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=MAX_TOKENS,
                pad_token_id=2,
            )
        answers[prompt] = [int(token) for token in whole[0, ids.shape[1] :]]
    file.write_text(json.dumps(answers))


def _write_lora(model: Any, targets: tuple[str, ...], directory: Path, base: str) -> None:
    """Write a random adapter, and merge it into the model."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for path, module in model.named_modules():
        if path.rpartition(".")[2] not in targets:
            continue
        rows, columns = module.weight.shape
        a, b = torch.randn(RANK, columns) * 0.05, torch.randn(rows, RANK) * 0.05
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
        module.weight.data += (b @ a) * (ALPHA / RANK)
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(targets),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", choices=[*SHAPES, []])
    args = parser.parse_args()
    for name in args.names or SHAPES:
        write(name, args.directory)
        print(args.directory / name)


if __name__ == "__main__":
    main()
