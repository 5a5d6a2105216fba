"""The entries of a models file: validated, frozen, and without any knowledge of Ray or vLLM.

Each model ID has one entry, of one of four kinds: `engine` (a model on engines of its own),
`adapter` (a LoRA on such an engine), `upstream` (a hosted provider's model) or `retired` (a
provider's model that exists no more). `serving/catalogue/seed/` has an entry for every known model;
an operator's file names those to deploy, overrides their fields and adds others (`load.py`).
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from serving.catalogue.base import Spec
from serving.catalogue.parsers import REASONING_PARSERS, TOOL_PARSERS, check_parser
from serving.catalogue.price import Price
from serving.catalogue.quota import Quota

# vLLM's arguments that fields of ours set, and those fields. One is the number of LoRA slots: base
# models' output is right only while a slot stays empty (serving/engine/adapters.py).
OWN_ARGUMENTS = {
    "model": "weights",
    "revision": "revision",
    "served_model_name": "id",
    "max_model_len": "context",
    "tensor_parallel_size": "tensor_parallel",
    "dtype": "dtype",
    "chat_template": "chat_template",
    "tool_call_parser": "tool_parser",
    "enable_auto_tool_choice": "tool_parser",
    "reasoning_parser": "reasoning_parser",
    "runner": "task",
    "enable_lora": "lora",
    "max_loras": "lora.max_loaded",
    "max_lora_rank": "lora.max_rank",
}

ModelId = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@-]*$")
]

HostPattern = Annotated[
    str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)(:\d{1,5})?$")
]

Certainty = Literal["zoo", "known", "guess"]


class _Model(Spec):
    """The fields of every kind of entry.

    A model that is not `deployed` is only known: `?all=true` lists it, and a request for it gets a
    404 that says how to deploy it.
    """

    id: ModelId
    deployed: bool = True
    note: str | None = Field(default=None, description="what an operator should know about it")
    price: Price | None = Field(
        default=None, description="of a million tokens, for budgets of money; default: nothing"
    )
    quota: Quota | None = Field(
        default=None, description="how much all callers together may use it"
    )


def _is_template(text: str) -> str:
    if "{{" not in text and "{%" not in text:
        raise ValueError("is no template; write the template itself (Jinja), not a file's name")
    return text


ChatTemplate = Annotated[str, AfterValidator(_is_template)]


class _Checkpoint(_Model):
    """The files of an open model, and what is known of them."""

    weights: Annotated[str, Field(min_length=1)] = Field(
        description="directory of the checkpoint, or its repository ID"
    )
    revision: str | None = Field(
        default=None, description="commit or tag of the repository; default: its newest"
    )
    certainty: Certainty | None = Field(
        default=None,
        description="of the repository: `zoo` (LLM Engine's own mapping), `known`, `guess`",
    )
    licence: str | None = None


class Lora(Spec):
    """How many adapters a base model's engine takes, and of which rank."""

    max_loaded: Annotated[int, Field(ge=1)] = Field(
        default=4, description="adapters one replica holds in memory at once"
    )
    max_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 16

    @property
    def slots(self) -> int:
        """How many slots the engine gets: one more than is ever filled, for the reason that
        serving/engine/adapters.py gives."""
        return self.max_loaded + 1


class EngineSpec(_Checkpoint):
    """A model on engines of its own.

    `task` says what the model is for: `generate` (completions and chats), `embed` (vectors, and
    scores by their cosine), `score` (a cross-encoder, which reads query and document together) or
    `transcribe` (what is said in a recording).
    `prompt_style` says how Create Completion's prompt reaches the model: `raw` as it is (base
    models), `chat` as one user message through the chat template (instruct models). `runtime` is
    the engine: vLLM, or `transformers` for what vLLM cannot run.
    """

    kind: Literal["engine"] = "engine"
    task: Literal["generate", "embed", "score", "transcribe"] = "generate"
    runtime: Literal["vllm", "transformers"] = "vllm"
    architecture: str | None = Field(default=None, description="class name in the checkpoint")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="the sizes of the checkpoint's config.json that memory is computed from",
    )
    prompt_style: Literal["raw", "chat"] = "raw"
    chat_template: ChatTemplate | None = Field(
        default=None, description="replaces the checkpoint's own template, in Jinja"
    )
    context: Annotated[int, Field(ge=16)] = Field(
        description="prompt and completion, one input of an embedding model, or one pair of query "
        "and document, in tokens"
    )
    vision: bool = Field(default=False, description="takes images")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    replicas: Annotated[int, Field(ge=1)] = 1
    min_replicas: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="0: none runs until a request comes; default: always all `replicas`",
    )
    idle_s: Annotated[float, Field(gt=0)] = Field(
        default=600.0, description="seconds without a request until only `min_replicas` run"
    )
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="GPUs of one replica; default: tensor_parallel"
    )
    gpu_memory_gib: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="memory of one of its GPUs, for `serving plan`"
    )
    cpus: Annotated[float, Field(ge=0)] = 1.0
    lora: Lora | None = None
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="the engine's own arguments, passed through untouched"
    )
    tool_parser: str | None = Field(
        default=None,
        description="vLLM's parser of this model's tool calls; without one it takes no tools",
    )
    reasoning_parser: str | None = Field(
        default=None,
        description="vLLM's parser of this model's reasoning, which it tells from the answer",
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment of the engine")
    start_timeout_s: Annotated[float, Field(gt=0)] = 1800

    @field_validator("engine_args")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if own := OWN_ARGUMENTS.get(name.replace("-", "_")):
                raise ValueError(f"'{name}' is set by the field `{own}`")
        return value

    @field_validator("tool_parser", "reasoning_parser")
    @classmethod
    def _known_parser(cls, value: str | None, info: ValidationInfo) -> str | None:
        # A plugin's parsers are known to the engine only.
        plugin = f"{info.field_name}_plugin"
        arguments = info.data.get("engine_args", {})
        if value is not None and not arguments.keys() & {plugin, plugin.replace("_", "-")}:
            known = TOOL_PARSERS if info.field_name == "tool_parser" else REASONING_PARSERS
            check_parser(value, known)
        return value

    @model_validator(mode="after")
    def _possible(self) -> EngineSpec:
        if self.min_replicas is not None and self.min_replicas > self.replicas:
            raise ValueError("`min_replicas` is above `replicas`")
        if self.runtime == "transformers" and self.lora is not None:
            raise ValueError("the transformers engine has no `lora:`; merge the adapter instead")
        if self.runtime == "transformers" and self.tensor_parallel != 1:
            raise ValueError(
                "the transformers engine runs on one GPU; write `tensor_parallel: 1` and give it "
                "a GPU that holds the model"
            )
        if self.runtime == "transformers" and self.vision:
            raise ValueError("the transformers engine takes no images; use `runtime: vllm`")
        if self.runtime == "transformers" and (self.tool_parser or self.reasoning_parser):
            raise ValueError(
                "the transformers engine has no `tool_parser` and no `reasoning_parser`; use "
                "`runtime: vllm`"
            )
        return self

    @model_validator(mode="after")
    def _makes_no_text(self) -> EngineSpec:
        if self.task == "generate":
            return self
        kind = {
            "embed": "an embedding model",
            "score": "a scoring model",
            "transcribe": "a model for recordings",
        }[self.task]
        if self.runtime != "vllm":
            raise ValueError(f"{kind} runs on vLLM only; write `runtime: vllm`")
        if self.lora is not None:
            raise ValueError(f"{kind} takes no adapters; write `lora: null`")
        if self.vision:
            raise ValueError(f"{kind} takes no images; write `vision: false`")
        if self.prompt_style != "raw":
            raise ValueError(f"{kind} has no chats; write `prompt_style: raw`")
        # A language model that ranks puts query and document into a template.
        others = () if self.task == "score" else ("chat_template",)
        for name in (*others, "tool_parser", "reasoning_parser"):
            if getattr(self, name) is not None:
                raise ValueError(f"{kind} has no chats; write `{name}: null`")
        return self

    @property
    def gpus_per_replica(self) -> int:
        return self.tensor_parallel if self.gpus is None else self.gpus

    @property
    def fewest_replicas(self) -> int:
        """How many replicas run while nobody asks for the model."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @property
    def base_names(self) -> frozenset[str]:
        """The names that an adapter's configuration may have for this base model."""
        return frozenset((self.id, Path(self.weights).name))


class AdapterSpec(_Checkpoint):
    """A LoRA adapter on a base model's engine, served under an ID of its own.

    Its prompts are formatted like its base's, unless it has a `prompt_style` or `chat_template` of
    its own: training on chats may have made a chat model of a `raw` base, or used another template.
    """

    kind: Literal["adapter"]
    base: ModelId
    prompt_style: Literal["raw", "chat"] | None = Field(
        default=None, description="how Create Completion's prompt reaches it; default: its base's"
    )
    chat_template: ChatTemplate | None = Field(
        default=None, description="of its chats, in Jinja; default: its base's"
    )


class UpstreamSpec(_Model):
    """A hosted provider's model. `model` is the provider's name for it; default: the ID. `task` is
    what the model is for, as of an engine model."""

    kind: Literal["upstream"]
    task: Literal["generate", "embed"] = "generate"
    provider: str
    model: str | None = None
    context: Annotated[int, Field(ge=16)] | None = None
    max_output: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="most tokens of one completion; sent if the caller sets no limit",
    )
    vision: bool = False
    reasoning: bool = Field(default=False, description="takes `reasoning_effort`")
    shutdown_on: date | None = Field(default=None, description="announced by the provider")
    source: str | None = Field(default=None, description="where `shutdown_on` is published")

    @model_validator(mode="after")
    def _embeds_and_nothing_else(self) -> UpstreamSpec:
        for name in ("vision", "reasoning"):
            if self.task == "embed" and getattr(self, name):
                raise ValueError(f"an embedding model makes no text; write `{name}: false`")
        return self

    @property
    def upstream_model(self) -> str:
        return self.model or self.id


class RetiredSpec(_Model):
    """A provider's model that exists no more. Requests for it get a 410, unless an alias of this ID
    names another model."""

    kind: Literal["retired"]
    provider: str
    retired_on: str = Field(
        pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$", description="day, month or year, as published"
    )
    successor: str | None = Field(default=None, description="the provider's own recommendation")
    source: str | None = Field(default=None, description="where the date is published")

    @field_validator("retired_on", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        # Without quotes YAML reads a day as a date and a year as a number.
        return str(value) if isinstance(value, date | int) else value


AnySpec = EngineSpec | AdapterSpec | UpstreamSpec | RetiredSpec
ModelSpec = Annotated[AnySpec, Field(discriminator="kind")]


class ImageLimits(Spec):
    """Which images vision models take: how large, how many, and from which hosts they are fetched.

    An image in a `data:` URL is not fetched.
    """

    allowed_hosts: tuple[HostPattern, ...] = Field(
        default=(),
        description="hosts of https: URLs; `*.example.com` allows its subdomains, `*` any public "
        "host; a port other than 443 is part of the entry",
    )
    max_bytes: Annotated[int, Field(gt=0)] = Field(
        default=10 * 1024 * 1024, description="of one image's file"
    )
    max_pixels: Annotated[int, Field(gt=0)] = Field(
        default=40_000_000,
        description="of a request's images together; decoding takes up to 16 bytes each",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="for one image, redirects included"
    )
    max_per_request: Annotated[int, Field(ge=1)] = 8
