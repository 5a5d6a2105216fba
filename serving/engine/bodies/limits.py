"""Limits on the sizes and counts of OpenAI bodies, read from the environment of an engine server.

A request's cost for others grows with these counts, whatever its prompt has in tokens: vLLM checks
each message and each part with pydantic, and turns each schema and pattern into a grammar. The
defaults leave room for everything that OpenAI's API takes. A model's `env` may say otherwise for
that model.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Count = Annotated[int, Field(ge=1)]


class BodyLimits(BaseSettings):
    """Every limit (`SERVING_LIMIT_*`) with its default; `docs/operations.md` lists them."""

    model_config = SettingsConfigDict(env_prefix="SERVING_LIMIT_", frozen=True)

    messages: Count = Field(
        default=1024, description="messages of a chat, or items of a response's `input`"
    )
    parts: Count = Field(
        default=1024, description="content parts and tool calls of a chat's messages together"
    )
    prompts: Count = Field(default=512, description="prompts, inputs or documents of one request")
    pair_chars: Count = Field(
        default=2 * 1024 * 1024,
        description="characters of a request's pairs of query and document together, a query "
        "counted with each of its documents",
    )
    choices: Count = Field(default=128, description="choices of one prompt (`n`, `best_of`)")
    completions: Count = Field(
        default=512, description="choices of all prompts of a request together"
    )
    logprobs: Count = Field(
        default=256,
        description="log probabilities that a step may make for one request: `logprobs`, "
        "`top_logprobs`, `prompt_logprobs` or `logprob_token_ids` times its choices",
    )
    streamed_logprobs: Count = Field(
        default=64,
        description="the same of a streamed request",
    )
    answer_logprobs: Count = Field(
        default=3_145_728,
        description="log probabilities that an answer may have: those of a token times its choices "
        "and `max_tokens`, or the model's context",
    )
    streamed_response_logprobs: Count = Field(
        default=8192,
        description="the same of a streamed response, whose last events repeat all of them",
    )
    prompt_logprobs: Count = Field(
        default=32_768,
        description="log probabilities of the prompts of a request together, in all choices "
        "(`prompt_logprobs`, or `echo` with `logprobs`)",
    )
    streamed_prompt_logprobs: Count = Field(
        default=2048, description="the same of a streamed request"
    )
    token_ids: Count = Field(
        default=262_144,
        description="token IDs of a request's prompts together, those of texts to embed and of "
        "pairs to score too; a model's context, if it is longer",
    )
    tools: Count = Field(default=128, description="tools of a chat")
    stops: Count = Field(default=16, description="stop strings, where vLLM allows so many")
    stop_chars: Count = Field(default=1024, description="characters of one stop string or bad word")
    items: Count = Field(default=4096, description="items of any other list")
    entries: Count = Field(default=1024, description="entries of a field that is an object")
    string_chars: Count = Field(
        default=8192, description="characters of a field that is a string and no prompt"
    )
    field_bytes: Count = Field(
        default=262_144, description="JSON bytes of a field that holds no prompt"
    )
    rest_bytes: Count = Field(
        default=524_288,
        description="JSON bytes of a body without its prompts, messages and images, tool calls "
        "counted",
    )
    text_bytes: Count = Field(
        default=8 * 1024 * 1024, description="JSON bytes of prompts or messages, images aside"
    )
    fields: Count = Field(default=256, description="fields of a body")
    brackets: Count = Field(
        default=100_000, description="opening brackets and braces in a body, those of its texts too"
    )
    commas: Count = Field(default=400_000, description="commas in a body, those of its texts too")
    values: Count = Field(default=20_000, description="JSON values in one field, prompts aside")
    depth: Count = Field(default=80, description="levels of nesting in any field")
    schema_properties: Count = Field(
        default=1000, description="properties and definitions of a request's schemas together"
    )
    enum_values: Count = Field(
        default=1000, description="`enum` values and choices of a request's schemas together"
    )
    schema_chars: Count = Field(
        default=32_768, description="characters of those names and values together"
    )
    tags: Count = Field(default=32, description="structural tags and their triggers, each")
    lengths: Count = Field(
        default=100_000, description="`maxLength`, `maxItems` and their like in a schema"
    )
    pattern_chars: Count = Field(default=2048, description="characters of one regular expression")
    pattern_size: Count = Field(
        default=512,
        description="size of a request's regular expressions together, their repetitions written "
        "out: `[a-z]{1,50}` has 50",
    )
    audio_bytes: Count = Field(
        default=25 * 1024 * 1024, description="bytes of a recording, as it is sent"
    )
    audio_seconds: Count = Field(default=600, description="seconds of a recording")
    grammar_chars: Count = Field(default=16_384, description="characters of a grammar")
