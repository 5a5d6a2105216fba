"""Model deployments as scale-gp lists them. Each model here has one, with the ID of the model;
which there are is the operator's to say, in the models file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from serving.api.models import OWNER, ModelEntry, Query, page_of, parse_query
from serving.api.pages import Ask, Page, View, json_page

_SORTABLE = (
    "id",
    "name",
    "model_instance_id",
    "model_endpoint_id",
    "created_at",
    "status",
    "account_id",
    "created_by_user_id",
    "created_by_identity_type",
    "vendor_configuration",
    "deployment_metadata",
    "model_creation_parameters",
)


def deployments(view: View, ask: Ask) -> Page:
    """`GET /v4/model-deployments`: of all models."""
    query = parse_query(ask.query, _SORTABLE)
    return _page(view.entries(everything=False), query, view.started, ask.account)


def deployments_of_model(view: View, ask: Ask) -> Page:
    """`GET /v4/models/{model}/deployments`."""
    query = parse_query(ask.query, _SORTABLE)
    return _page([view.entry(ask.name)], query, view.started, ask.account)


def one_deployment(view: View, ask: Ask) -> Page:
    """`GET /v4/models/{model}/deployments/{model}`."""
    return json_page(deployment(view.entry(ask.name), view.started, ask.account))


def deployment(entry: ModelEntry, created: int, account: str | None) -> dict[str, Any]:
    """One deployment, with the fields of scale-gp's `ModelDeployment`."""
    return {
        "id": entry.id,
        "name": entry.id,
        "model_instance_id": entry.id,
        "model_endpoint_id": None,
        "account_id": account or OWNER,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat(),
        "created_by_identity_type": "service_account",
        "created_by_user_id": OWNER,
        "status": "READY" if entry.ready else "UPDATE_IN_PROGRESS",
        "vendor_configuration": None,
        "model_creation_parameters": None,
        "deployment_metadata": {
            "kind": entry.kind,
            "runtime": entry.runtime,
            "replicas": entry.replicas,
        },
    }


def _page(entries: Sequence[ModelEntry], query: Query, created: int, account: str | None) -> Page:
    return json_page(page_of(entries, query, lambda entry: deployment(entry, created, account)))
