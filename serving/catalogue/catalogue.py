"""The catalogue: every model, alias and provider of one installation, in one frozen object."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from serving.catalogue.base import Spec
from serving.catalogue.providers import Provider
from serving.catalogue.references import MisreferenceError, misreferences
from serving.catalogue.spec import (
    AdapterSpec,
    AnySpec,
    EngineSpec,
    ImageLimits,
    ModelId,
    ModelSpec,
    RetiredSpec,
    UpstreamSpec,
)


class RouterSpec(Spec):
    """How many routers run, and the CPUs that Ray reserves for each.

    `leave_s`: how long the last router of a machine that is taken down goes on accepting, while
    `/ready` says 503, so that load balancers leave first.
    """

    replicas: Annotated[int, Field(ge=1)] = 2
    cpus: Annotated[float, Field(ge=0)] = 0.5
    leave_s: Annotated[float, Field(ge=0)] = 10.0


class Catalogue(Spec):
    """Every model that one installation knows, deployed or not, with aliases and providers.

    Raises:
        pydantic.ValidationError: an ID is used twice, or an alias or adapter points nowhere.
    """

    models: tuple[ModelSpec, ...]
    aliases: dict[ModelId, ModelId] = Field(default_factory=dict)
    providers: dict[str, Provider] = Field(default_factory=dict)
    router: RouterSpec = RouterSpec()
    drain_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="how long requests may go on when their replica is taken down"
    )
    images: ImageLimits = ImageLimits()

    @model_validator(mode="after")
    def _refer_to_each_other(self) -> Catalogue:
        if findings := list(misreferences(self.models, self.aliases, self.providers)):
            raise MisreferenceError(findings)
        return self

    @property
    def deployed(self) -> tuple[AnySpec, ...]:
        """The models that answer requests."""
        return tuple(
            model for model in self.models if model.deployed and not isinstance(model, RetiredSpec)
        )

    @property
    def engines(self) -> tuple[EngineSpec, ...]:
        """The deployed engine models."""
        return tuple(model for model in self.deployed if isinstance(model, EngineSpec))

    @property
    def adapters(self) -> tuple[AdapterSpec, ...]:
        """The deployed adapters."""
        return tuple(model for model in self.deployed if isinstance(model, AdapterSpec))

    @property
    def upstreams(self) -> tuple[UpstreamSpec, ...]:
        """The deployed models of hosted providers."""
        return tuple(model for model in self.deployed if isinstance(model, UpstreamSpec))
