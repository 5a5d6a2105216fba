"""The same as `heavy_bodies.py` for models that read and do not write: embedding models and
cross-encoders. The lengths fit a context of 256 to 512 tokens, and are over it where they mean to.
"""

from __future__ import annotations

from loadtests.inside.heavy_bodies import MIB, Maker, as_json, lazy

EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
SCORE = "/v1/score"

# Words, of which a tokenizer makes about as many tokens.
_W60 = "hello " * 60
_W100 = "hello " * 100

EMBED: dict[str, Maker] = {
    "8 MB text": lazy(EMBEDDINGS, lambda: {"input": "hello " * 1_400_000}),
    "8 MB text, truncated": lazy(
        EMBEDDINGS, lambda: {"input": "hello " * 1_300_000, "truncate_prompt_tokens": 10}
    ),
    "1 MB word, truncated": lazy(
        EMBEDDINGS, lambda: {"input": "qz" * (MIB // 2), "truncate_prompt_tokens": 10}
    ),
    "200,000 emoji, truncated": lazy(
        EMBEDDINGS, lambda: {"input": "\U0001f9ff" * 200_000, "truncate_prompt_tokens": 10}
    ),
    "20,000 inputs": lazy(EMBEDDINGS, lambda: {"input": ["hi"] * 20_000}),
    "512 inputs": as_json(EMBEDDINGS, input=["hi"] * 512),
    "512 inputs of 60 tokens": as_json(EMBEDDINGS, input=[_W60] * 512),
    "512 inputs of 60 tokens, base64": as_json(
        EMBEDDINGS, input=[_W60] * 512, encoding_format="base64"
    ),
    "512 inputs of 100 tokens": as_json(EMBEDDINGS, input=[_W100] * 512),
    "512 inputs of 250 token IDs": as_json(EMBEDDINGS, input=[[5] * 250] * 512),
    "512 inputs of 16 KB, truncated": lazy(
        EMBEDDINGS, lambda: {"input": ["hello " * 2_700] * 512, "truncate_prompt_tokens": 200}
    ),
    "1e6 token IDs": lazy(EMBEDDINGS, lambda: {"input": [5] * 1_000_000}),
    "100,000 messages": lazy(
        EMBEDDINGS, lambda: {"messages": [{"role": "user", "content": "hi"}] * 100_000}
    ),
    "1e6 keys": lazy(
        EMBEDDINGS, lambda: {"input": "hi", "user": "u", **{f"k{n}": n for n in range(1_000_000)}}
    ),
    "two models' scores: 511 documents": lazy(
        SCORE, lambda: {"text_1": "hi", "text_2": [_W60] * 511}
    ),
}

SCORES: dict[str, Maker] = {
    "query of 8 MB": lazy(RERANK, lambda: {"query": "hello " * 1_400_000, "documents": ["hi"]}),
    "query of 1 MB, 512 documents": lazy(
        RERANK, lambda: {"query": "hello " * 170_000, "documents": ["hi"] * 512}
    ),
    "query of 4 KB, 512 documents, truncated": lazy(
        RERANK,
        lambda: {"query": "hello " * 680, "documents": ["hi"] * 512, "truncate_prompt_tokens": 200},
    ),
    "20,000 documents": lazy(RERANK, lambda: {"query": "hi", "documents": ["a"] * 20_000}),
    "512 documents": as_json(RERANK, query="hi", documents=["a"] * 512),
    "512 documents of 60 tokens": as_json(RERANK, query="hi", documents=[_W60] * 512),
    "512 documents of 100 tokens": as_json(RERANK, query=_W100, documents=[_W100] * 512),
    "512 pairs of 200 tokens": as_json(SCORE, text_1=[_W100] * 512, text_2=[_W100] * 512),
    "512 pairs of 8 KB, truncated": lazy(
        SCORE,
        lambda: {
            "text_1": ["hello " * 340] * 512,
            "text_2": ["hello " * 340] * 512,
            "truncate_prompt_tokens": 200,
        },
    ),
    "100,000 pairs": lazy(SCORE, lambda: {"text_1": ["a"] * 100_000, "text_2": ["b"] * 100_000}),
    "a document of 8 MB, truncated": lazy(
        RERANK,
        lambda: {
            "query": "hi",
            "documents": ["hello " * 340_000],
            "truncate_prompt_tokens": 100,
        },
    ),
    "100,000 parts in a document": lazy(
        SCORE,
        lambda: {
            "text_1": "hi",
            "text_2": {"content": [{"type": "text", "text": "a"}] * 100_000},
        },
    ),
}
