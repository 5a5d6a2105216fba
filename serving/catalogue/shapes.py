"""Computes a model's sizes from its Hugging Face config.json: parameters, heads, layers.

Each family of architectures has a function, which writes its count out. Norms are counted, and
biases where a family has them throughout (GPT-2, BERT). Norms and position tables are not split
over GPUs; the error is below 0.1 % and is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Linear:
    """`count` weight matrices of one size, and the side along which tensor parallel splits them."""

    inputs: int
    outputs: int
    split: Literal["inputs", "outputs"]
    count: int = 1

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs * self.count

    def lora_parameters(self, rank: int, tensor_parallel: int) -> int:
        """Return one adapter's parameters on one GPU: A (rank x inputs) and B (outputs x rank).

        The factor on the split side is split too; the other one is whole on every GPU.
        """
        inputs, outputs = self.inputs, self.outputs
        if self.split == "inputs":
            inputs = -(-inputs // tensor_parallel)
        else:
            outputs = -(-outputs // tensor_parallel)
        return rank * (inputs + outputs) * self.count


@dataclass(frozen=True)
class Shape:
    """The sizes that a model's memory follows from.

    `parameters` counts what is in memory: an output head that is tied to the embedding counts once,
    even if the checkpoint stores it twice (Falcon). `cached_layers` is how many layers keep a
    token's keys and values. `longest` is the longest context the model was made for, in tokens, if
    the config says it.
    """

    parameters: int
    cached_layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    hidden: int
    layers: int
    linears: tuple[Linear, ...] = ()
    feed_forward: int | None = None
    longest: int | None = None


class UnknownShapeError(Exception):
    """The config lacks a size, or no family here has its architecture."""


def shape_of(architecture: str | None, config: Config) -> Shape:
    """Return the sizes of a model.

    Raises:
        UnknownShapeError: the architecture has no formula here, or a size is missing.
    """
    if architecture is None:
        raise UnknownShapeError("its `architecture` is not given")
    family = FAMILIES.get(architecture)
    if family is None:
        raise UnknownShapeError(f"no formula for the architecture {architecture}")
    try:
        return family(config)
    except KeyError as error:
        raise UnknownShapeError(f"`config` lacks {error}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UnknownShapeError(f"`config` has a size that is none: {error}") from None


def llama(config: Config) -> Shape:
    """Llama, Mistral, Mixtral, Phi-3 and kin.

    A layer: q (h x heads·d), k and v (h x kv·d), o (heads·d x h), then gate, up (h x f) and down
    (f x h), the last three once per expert, and the experts' gate (h x experts); two norms (h).
    Around the layers: embedding (v x h), output head (v x h, unless tied), last norm (h).
    """
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads, vocab = int(config["num_attention_heads"]), int(config["vocab_size"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    feed_forward = int(config["intermediate_size"])
    experts = int(config.get("num_local_experts") or 1)
    linears = (
        Linear(hidden, heads * head_dim, "outputs"),
        Linear(hidden, kv_heads * head_dim, "outputs", count=2),
        Linear(heads * head_dim, hidden, "inputs"),
        Linear(hidden, feed_forward, "outputs", count=2 * experts),
        Linear(feed_forward, hidden, "inputs", count=experts),
    )
    layer = sum(linear.parameters for linear in linears) + 2 * hidden
    if experts > 1:
        layer += hidden * experts
    tied = bool(config.get("tie_word_embeddings", False))
    # A rope scaling makes the context longer, by rules that only vLLM knows.
    scaled = config.get("rope_scaling") or config.get("rope_parameters")
    longest = config.get("max_position_embeddings")
    return Shape(
        parameters=layers * layer + vocab * hidden * (1 if tied else 2) + hidden,
        cached_layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        linears=linears,
        feed_forward=feed_forward,
        longest=int(longest) if longest and not scaled else None,
    )


def headless_llama(config: Config) -> Shape:
    """An embedding model of Llama's shape, which has no output head."""
    return llama({**config, "tie_word_embeddings": True})


def bert(config: Config) -> Shape:
    """BERT: 4 h² of attention, 2 h·f of feed-forward, all with biases; it caches nothing.

    The pooler behind the last layer is not counted, since vLLM does not load it.
    """
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads, vocab = int(config["num_attention_heads"]), int(config["vocab_size"])
    positions = int(config["max_position_embeddings"])
    inner = int(config["intermediate_size"])
    biases_and_norms = 4 * hidden + inner + hidden + 4 * hidden
    layer = 4 * hidden**2 + 2 * hidden * inner + biases_and_norms
    tables = vocab + positions + int(config.get("type_vocab_size", 2))
    return Shape(
        parameters=layers * layer + tables * hidden + 2 * hidden,
        cached_layers=0,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        feed_forward=inner,
        longest=positions,
    )


def classifying(shape: Callable[[Config], Shape]) -> Callable[[Config], Shape]:
    """A cross-encoder: an encoder with a matrix and a label for a pair on its first token."""

    def shape_with_head(config: Config) -> Shape:
        found, labels = shape(config), len(config.get("id2label") or (0,))
        head = found.hidden**2 + found.hidden + labels * (found.hidden + 1)
        return replace(found, parameters=found.parameters + head)

    return shape_with_head


def roberta(config: Config) -> Shape:
    """RoBERTa: BERT whose positions are counted from behind the padding token's ID."""
    offset = int(config.get("pad_token_id", 1)) + 1
    return replace(bert(config), longest=int(config["max_position_embeddings"]) - offset)


def falcon(config: Config) -> Shape:
    """Falcon: query, key and value in one matrix, a feed-forward of 4 h, a tied output head.

    A layer: query_key_value (h x (heads + 2 kv)·d), dense (h x h), 4 h up and down (8 h²), norms.
    `new_decoder_architecture` (40B) groups the queries over `num_kv_heads` and has two norms;
    otherwise `multi_query` (7B) shares one key and value head.
    """
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    heads, vocab = int(config["num_attention_heads"]), int(config["vocab_size"])
    grouped = bool(config.get("new_decoder_architecture"))
    if grouped:
        kv_heads = int(config.get("num_kv_heads") or heads)
    else:
        kv_heads = 1 if config.get("multi_query", True) else heads
    head_dim = hidden // heads
    norms = (2 if grouped or not config.get("parallel_attn", True) else 1) * 2 * hidden
    layer = hidden * (heads + 2 * kv_heads) * head_dim + hidden**2 + 8 * hidden**2 + norms
    head = 0 if config.get("tie_word_embeddings", True) else vocab * hidden
    return Shape(
        parameters=layers * layer + vocab * hidden + head + 2 * hidden,
        cached_layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        feed_forward=4 * hidden,
    )


def gpt2(config: Config) -> Shape:
    """GPT-2: 4 h² of attention, 2 h·f of feed-forward, all with biases, learned positions, tied."""
    hidden, layers = int(config["n_embd"]), int(config["n_layer"])
    heads, vocab = int(config["n_head"]), int(config["vocab_size"])
    positions = int(config["n_positions"])
    inner = int(config.get("n_inner") or 4 * hidden)
    biases_and_norms = 4 * hidden + inner + hidden + 4 * hidden
    layer = 4 * hidden**2 + 2 * hidden * inner + biases_and_norms
    return Shape(
        parameters=layers * layer + (vocab + positions) * hidden + 2 * hidden,
        cached_layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        feed_forward=inner,
        longest=positions,
    )


def mpt(config: Config) -> Shape:
    """MPT: 4 h² of attention, 2 h·(ratio·h) of feed-forward; no biases or positions, tied."""
    hidden, layers = int(config["d_model"]), int(config["n_layers"])
    heads, vocab = int(config["n_heads"]), int(config["vocab_size"])
    inner = int(config.get("expansion_ratio", 4)) * hidden
    return Shape(
        parameters=layers * (4 * hidden**2 + 2 * hidden * inner + 2 * hidden)
        + vocab * hidden
        + hidden,
        cached_layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        feed_forward=inner,
        longest=int(config["max_seq_len"]) if "max_seq_len" in config else None,
    )


def t5(config: Config) -> Shape:
    """T5: an encoder of attention and feed-forward, a decoder with cross-attention besides.

    Attention is 4 h·(heads·d_kv), the feed-forward 3 h·f if gated, else 2 h·f. Every decoder layer
    caches a prompt's token as a key and value of cross-attention and a completion's token as those
    of self-attention, so both cost the same.
    """
    hidden, heads, d_kv = int(config["d_model"]), int(config["num_heads"]), int(config["d_kv"])
    encoder, vocab = int(config["num_layers"]), int(config["vocab_size"])
    decoder = int(config.get("num_decoder_layers") or encoder)
    inner = int(config["d_ff"])
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    attention = 4 * hidden * heads * d_kv
    feed_forward = (3 if gated else 2) * hidden * inner
    tied = bool(config.get("tie_word_embeddings", True))
    return Shape(
        parameters=encoder * (attention + feed_forward + 2 * hidden)
        + decoder * (2 * attention + feed_forward + 3 * hidden)
        + vocab * hidden * (1 if tied else 2)
        + 2 * hidden,
        cached_layers=decoder,
        heads=heads,
        kv_heads=heads,
        head_dim=d_kv,
        vocab=vocab,
        hidden=hidden,
        layers=encoder + decoder,
        feed_forward=inner,
    )


FAMILIES: dict[str, Callable[[Config], Shape]] = {
    "LlamaForCausalLM": llama,
    "MistralForCausalLM": llama,
    "MixtralForCausalLM": llama,
    "Phi3ForCausalLM": llama,
    "FalconForCausalLM": falcon,
    "RWForCausalLM": falcon,
    "GPT2LMHeadModel": gpt2,
    "MPTForCausalLM": mpt,
    "MptForCausalLM": mpt,
    "T5ForConditionalGeneration": t5,
    "LlamaModel": headless_llama,
    "MistralModel": headless_llama,
    "BertModel": bert,
    "RobertaModel": roberta,
    "XLMRobertaModel": roberta,
    "BertForSequenceClassification": classifying(bert),
    "RobertaForSequenceClassification": classifying(roberta),
    "XLMRobertaForSequenceClassification": classifying(roberta),
}
