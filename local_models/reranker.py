"""Trains the cross-encoder: does this text answer this question?

It has BERT's architecture with one label, so it reads question and text together. What is right are
the instruct model's questions with their answers, and what is wrong is another question's answer,
often one of the same form.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from local_models import corpus, dialogues, train

CONTEXT = 256
STEPS = 1500
PAIRS = 48  # of one step
SPECIALS = ["<s>", "</s>", "<pad>"]

Pair = tuple[str, str]


def right_pairs() -> list[Pair]:
    """Questions with what answers them, stories aside."""
    short = [pair for pair in dialogues.questions() if len(pair[1]) <= dialogues.LONG_ANSWER]
    unknown = dialogues.UNKNOWN_ANSWER
    return [(question, answer) for question, answer in short if answer != unknown]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that writes two texts as <s> A </s> B </s>, the second one of type 1."""
    base = train.make_tokenizer(texts, 1024, SPECIALS, "{{ messages }}", CONTEXT).backend_tokenizer
    base.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<s> $A </s>",
                pair="<s> $A </s> $B:1 </s>:1",
                special_tokens=[(name, base.token_to_id(name)) for name in SPECIALS[:2]],
            ),
        ]
    )
    build: Any = PreTrainedTokenizerFast  # its constructor has no types
    made: PreTrainedTokenizerFast = build(
        tokenizer_object=base,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    return made


def draw(rng: random.Random, pairs: list[Pair], texts: list[str]) -> tuple[str, str, float]:
    """A question, a text, and whether the text answers it."""
    question, answer = rng.choice(pairs)
    if rng.random() < 0.35:
        return question, answer, 1.0
    if rng.random() < 0.2:
        return question, rng.choice(texts), 0.0
    # Of a few wrong answers the one that begins like the right one is the hardest.
    wrong = [other for _, other in rng.choices(pairs, k=8) if other != answer]
    return question, max(wrong, key=lambda other: _common(other, answer)), 0.0


def _common(one: str, other: str) -> int:
    """How many words two texts share."""
    return len(set(one.split()) & set(other.split()))


def make(out: Path, name: str) -> None:
    """Train the model into out/name."""
    pairs = right_pairs()
    texts = [document.text for document in corpus.documents() if document.kind == "fact"]
    tokenizer = make_tokenizer([t for pair in pairs for t in pair if t.isascii()] + texts)
    torch.manual_seed(7)
    build: Any = BertForSequenceClassification  # its constructor has no types
    model = build(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,  # of 32: the smallest that vLLM takes on CPU
            max_position_embeddings=CONTEXT,
            pad_token_id=tokenizer.pad_token_id,
            num_labels=1,
            initializer_range=0.1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    rng = random.Random(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=STEPS)
    model.train()
    for step in range(STEPS):
        batch = [draw(rng, pairs, texts) for _ in range(PAIRS)]
        questions, answers, labels = (list(column) for column in zip(*batch, strict=True))
        inputs = tokenizer(questions, answers, padding=True, return_tensors="pt")
        logits = model(**inputs).logits[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == STEPS - 1:
            said = f"{name}: step {step}/{STEPS}, loss {loss.item():.4f}"
            print(said, file=sys.stderr, flush=True)
    model.train(False)
    model.save_pretrained(out / name)
    tokenizer.save_pretrained(out / name)
