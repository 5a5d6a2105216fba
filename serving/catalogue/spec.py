"""What an operator writes about a model: validated, frozen, and free of any runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Arguments of vLLM that fields of ours set. Two of them together bound the LoRA slots, which base
# models' output depends on (serving/engine/adapters.py).
OWN_ARGUMENTS = {
    "model": "weights",
    "served_model_name": "id",
    "max_model_len": "context",
    "tensor_parallel_size": "tensor_parallel",
    "enable_lora": "lora",
    "max_loras": "lora.max_loaded",
    "max_lora_rank": "lora.max_rank",
}

ModelId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][\w.:/@-]*$")]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Spec):
    """LoRA support of a base model's engine."""

    max_loaded: Annotated[int, Field(ge=1)] = Field(
        default=4, description="adapters one replica holds in memory at once"
    )
    max_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 16


class EngineSpec(_Spec):
    """A model on vLLM engines of its own.

    `prompt_style` says how Create Completion's prompt reaches the model: `raw` as it is (base
    models), `chat` as one user message through the chat template (instruct models).
    """

    kind: Literal["engine"] = "engine"
    id: ModelId
    weights: Annotated[str, Field(description="directory of the checkpoint, or its repository ID")]
    prompt_style: Literal["raw", "chat"] = "raw"
    chat_template: str | None = Field(
        default=None, description="replaces the checkpoint's own template for `chat` prompts"
    )
    context: Annotated[int, Field(ge=16)] = Field(description="prompt and completion, in tokens")
    replicas: Annotated[int, Field(ge=1)] = 1
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="GPUs of one replica; default: tensor_parallel"
    )
    cpus: Annotated[float, Field(ge=0)] = 1.0
    lora: Lora | None = None
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="vLLM's own arguments, passed through untouched"
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

    @property
    def gpus_per_replica(self) -> int:
        return self.tensor_parallel if self.gpus is None else self.gpus

    @property
    def base_names(self) -> frozenset[str]:
        """Names an adapter's configuration may call this base model by."""
        return frozenset((self.id, Path(self.weights).name))


class AdapterSpec(_Spec):
    """A fine-tuned model: a LoRA adapter on a base model's engine."""

    kind: Literal["adapter"]
    id: ModelId
    base: ModelId
    weights: Annotated[str, Field(description="directory of the adapter's files")]


ModelSpec = Annotated[EngineSpec | AdapterSpec, Field(discriminator="kind")]


class RouterSpec(_Spec):
    """The router deployment."""

    replicas: Annotated[int, Field(ge=1)] = 2
    cpus: Annotated[float, Field(ge=0)] = 0.5


class Catalogue(_Spec):
    """Everything one installation serves.

    Raises:
        pydantic.ValidationError: an ID is used twice, an alias or an adapter points nowhere.
    """

    models: tuple[ModelSpec, ...]
    aliases: dict[ModelId, ModelId] = Field(default_factory=dict)
    router: RouterSpec = RouterSpec()

    @model_validator(mode="after")
    def _refer_to_each_other(self) -> Catalogue:
        kinds: dict[str, EngineSpec | AdapterSpec] = {}
        for model in self.models:
            if model.id in kinds:
                raise ValueError(f"model ID '{model.id}' is used twice")
            kinds[model.id] = model
        for model in self.models:
            if not isinstance(model, AdapterSpec):
                continue
            base = kinds.get(model.base)
            if not isinstance(base, EngineSpec):
                raise ValueError(f"adapter '{model.id}': base '{model.base}' is no engine model")
            if base.lora is None:
                raise ValueError(f"adapter '{model.id}': base '{model.base}' has no `lora:`")
        for alias, target in self.aliases.items():
            if alias in kinds:
                raise ValueError(f"alias '{alias}' is also a model ID")
            if target not in kinds:
                raise ValueError(f"alias '{alias}' points to '{target}', which is no model ID")
        return self

    @property
    def engines(self) -> tuple[EngineSpec, ...]:
        return tuple(model for model in self.models if isinstance(model, EngineSpec))

    @property
    def adapters(self) -> tuple[AdapterSpec, ...]:
        return tuple(model for model in self.models if isinstance(model, AdapterSpec))
