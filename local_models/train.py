"""Tokenizers, training loops and LoRA, in plain torch.

All randomness comes from seeded generators and all work is done in one thread, so a run gives
the same files again on the same kind of processor and the same library versions.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

# One training text: token ids, and for each token whether its prediction is trained.
Example = tuple[list[int], list[bool]]
IGNORE = -100  # the label that the cross entropy skips

LORA_RANK = 8
LORA_ALPHA = 16
LORA_TARGETS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)


def make_tokenizer(
    texts: list[str],
    vocab_size: int,
    specials: list[str],
    chat_template: str,
    context: int,
    marks: tuple[str, ...] = (),
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that puts <s> before every text.

    specials begins with "<s>", "</s>" and "<pad>"; they get the first ids. marks are one token
    each too, get the last ids beyond vocab_size, and are part of the text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A",
                pair="<s> $A <s> $B",
                special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
            ),
        ]
    )
    build: Any = PreTrainedTokenizerFast  # its constructor has no types
    fast: PreTrainedTokenizerFast = build(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=specials[3:],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template
    return fast


def _rows(
    draw: Callable[[random.Random], Example], rng: random.Random, length: int
) -> Iterator[Example]:
    """Pack drawn examples one after another into rows of exactly length tokens, for ever."""
    ids: list[int] = []
    trained: list[bool] = []
    while True:
        while len(ids) < length:
            new_ids, new_trained = draw(rng)
            ids += new_ids
            trained += new_trained
        yield ids[:length], trained[:length]
        # What is cut off would begin in the middle of a text, so a new row starts afresh.
        ids, trained = [], []


def train(
    model: PreTrainedModel,
    parameters: list[nn.Parameter],
    draw: Callable[[random.Random], Example],
    *,
    name: str,
    steps: int,
    peak_lr: float,
    weight_decay: float,
    seed: int,
) -> None:
    """Fit parameters on examples from draw, 2048 tokens a step.

    Rows are 512 tokens long, and 1024 in the last fifth of the steps, so that the model has
    seen positions and distances of its whole context without the cost of long rows throughout.
    """
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(
        parameters, lr=peak_lr, betas=(0.9, 0.98), weight_decay=weight_decay
    )
    streams = {length: _rows(draw, rng, length) for length in (512, 1024)}
    warmup = max(1, steps // 20)
    model.train()
    for step in range(steps):
        rise = min(1.0, (step + 1) / warmup)
        fall = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * rise * (0.02 + 0.98 * fall)
        length = 512 if step < steps * 4 // 5 else 1024
        rows = [next(streams[length]) for _ in range(2048 // length)]
        ids = torch.tensor([row[0] for row in rows])  # (rows, length)
        trained = torch.tensor([row[1] for row in rows])
        loss = model(input_ids=ids, labels=ids.masked_fill(~trained, IGNORE)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            print(
                f"{name}: step {step}/{steps}, loss {loss.item():.4f}", file=sys.stderr, flush=True
            )
    model.train(False)


class LoraLinear(nn.Module):  # type: ignore[misc]  # where torch is not followed
    """A frozen linear layer with a trained low-rank addition, scaled by alpha / rank."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.empty(LORA_RANK, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, LORA_RANK))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features)."""
        low = nn.functional.linear(x, self.lora_A)
        added = nn.functional.linear(low, self.lora_B)
        base: torch.Tensor = self.base(x)
        return base + added * (LORA_ALPHA / LORA_RANK)


def add_lora(model: PreTrainedModel) -> dict[str, LoraLinear]:
    """Freeze the model and wrap its target layers; return the wrappers by module path."""
    model.requires_grad_(False)
    wrappers = {}
    for path, module in list(model.named_modules()):
        parent, _, leaf = path.rpartition(".")
        if leaf in LORA_TARGETS and isinstance(module, nn.Linear):
            wrappers[path] = LoraLinear(module)
            setattr(model.get_submodule(parent), leaf, wrappers[path])
    return wrappers


def save_adapter(wrappers: dict[str, LoraLinear], directory: Path) -> None:
    """Write an adapter in PEFT's format."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, wrapper in wrappers.items():
        for part in ("lora_A", "lora_B"):
            tensor = getattr(wrapper, part).detach().contiguous()
            tensors[f"base_model.model.{path}.{part}.weight"] = tensor
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny-llama",
        "r": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "lora_dropout": 0.0,
        "target_modules": list(LORA_TARGETS),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (directory / "adapter_config.json").write_text(text, encoding="utf-8")


@torch.no_grad()  # type: ignore[untyped-decorator]
def merge_adapter(model: PreTrainedModel, directory: Path) -> None:
    """Add an adapter's low-rank products to the model's weights, in place."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(directory / "adapter_model.safetensors")
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        b = tensors[key.replace(".lora_A.", ".lora_B.")]
        path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        weight = model.get_submodule(path).weight
        assert isinstance(weight, torch.Tensor)
        weight += (b @ a) * (config["lora_alpha"] / config["r"])
