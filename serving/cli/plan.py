"""`serving plan`: which GPUs a models file needs. It reads the file only and asks no server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from serving.cli import output as cli_output
from serving.cli.client import CommandError
from serving.cli.output import Json

if TYPE_CHECKING:
    from serving.catalogue.plan import ModelPlan, Plan

EXIT_BAD_FILE = 2
COLUMNS = (
    *("MODEL", "REPLICAS", "GPUS", "MEMORY"),
    *("WEIGHTS", "CACHE", "LORA", "OVERHEAD", "NEED", "MAY USE", "FITS", "SEQUENCES"),
)


class BadFile(CommandError):
    exit_code = EXIT_BAD_FILE


@click.command(
    short_help="Show which GPUs a models file needs.",
    epilog="""\b
Examples:
  serving plan deployments/models/llama-3-8b-instruct.yaml
  serving plan models.yaml --gpu-memory 22.5      on GPUs of 22.5 GiB (an A10, say)
  serving plan models.yaml --json | jq .gpus

\b
Columns (GiB, on one GPU of a replica):
  GPUS       of one replica; MEMORY: of each of them, from `gpu_memory_gib` or --gpu-memory
  WEIGHTS    the GPU's part of the model
  CACHE      keys and values of one sequence as long as `context`
  LORA       slots for adapters, set aside whether filled or not
  OVERHEAD   CUDA, its graphs, and the activations of a step: an allowance
  NEED       the four together; MAY USE: what `gpu_memory_utilization` leaves the engine
  SEQUENCES  of full length that a replica's cache holds at once

\b
Exit codes:
  0  everything fits, as far as sizes are known
  1  something cannot run: why, and what would, is on stderr
  2  the file cannot be used
""",
)
@click.argument("file", type=click.Path())
@click.option(
    "--gpu-memory",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GIB",
    help="Memory of every GPU, in place of what the models say.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, sizes in bytes.")
def plan(file: str, gpu_memory: float | None, as_json: bool) -> None:
    """Show which GPUs the models in FILE need, and refuse what cannot fit.

    The need is computed from each model's config and context. It is arithmetic, good to about a
    GiB, and no measurement.
    """
    # Here, so that the other commands start without pydantic and YAML.
    from serving.catalogue.load import CatalogueError, load_catalogue
    from serving.catalogue.plan import plan as make_plan

    try:
        catalogue = load_catalogue(file)
    except CatalogueError as error:
        raise BadFile(str(error)) from error
    planned = make_plan(catalogue.engines, gpu_memory)
    if as_json:
        cli_output.write_line(cli_output.one_line(as_dict(planned)))
    else:
        others = len(catalogue.adapters), len(catalogue.upstreams)
        cli_output.write_line(as_text(planned, *others))
    check_fits(planned)


def check_fits(planned: Plan) -> None:
    """Say what cannot run, and exit with 1 if something cannot."""
    if not planned.fits:
        for model in planned.models:
            for problem in model.problems:
                click.echo(f"error: model '{model.spec.id}': {problem}", err=True)
        raise click.exceptions.Exit(1)


def as_text(planned: Plan, adapters: int, upstreams: int) -> str:
    parts = []
    if planned.models:
        parts.append(cli_output.table(COLUMNS, map(_row, planned.models)))
    total = " + ".join(
        f"{count} of {memory:g} GiB" if memory is not None else f"{count} of unstated memory"
        for memory, count in planned.gpus.items()
    )
    parts.append(f"GPUs in all: {total or 'none'}")
    if adapters:
        parts.append(f"adapters, on their bases' GPUs: {adapters}")
    if upstreams:
        parts.append(f"providers' models, without GPUs: {upstreams}")
    for model in planned.models:
        if model.unknown is not None:
            parts.append(
                f"{model.spec.id}: need unknown: {model.unknown}; "
                "give `architecture` and `config`, or a checkpoint directory as `weights`"
            )
        elif model.need is not None and model.budget is None:
            parts.append(
                f"{model.spec.id}: fit unknown: give `gpu_memory_gib`, or --gpu-memory for all"
            )
    return "\n".join(parts)


def _row(model: ModelPlan) -> list[object]:
    need, budget = model.need, model.budget
    contexts = model.full_contexts
    return [
        model.spec.id,
        model.spec.replicas,
        model.gpus or "CPU",
        None if model.gpu_memory_gib is None else f"{model.gpu_memory_gib:g}",
        *(
            [None] * 5
            if need is None
            else map(gib, (need.weights, need.kv_cache, need.lora, need.overhead, need.total))
        ),
        None if budget is None else gib(budget),
        _verdict(model),
        None if contexts is None else f"{contexts:.1f}",
    ]


def gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def _verdict(model: ModelPlan) -> str | None:
    if model.problems:
        return "no"
    return None if model.need is None or model.budget is None else "yes"


def as_dict(planned: Plan) -> Json:
    """Sizes in bytes, on one GPU of a replica."""
    return {
        "fits": planned.fits,
        "gpus": [{"memory_gib": memory, "count": count} for memory, count in planned.gpus.items()],
        "models": [_model(model) for model in planned.models],
    }


def _model(model: ModelPlan) -> Json:
    need = model.need
    return {
        "id": model.spec.id,
        "replicas": model.spec.replicas,
        "gpus_per_replica": model.gpus,
        "gpu_memory_gib": model.gpu_memory_gib,
        "context": model.spec.context,
        "may_use": model.budget,
        "need": need
        and {
            "total": need.total,
            "weights": need.weights,
            "kv_cache": need.kv_cache,
            "kv_per_token": need.kv_per_token,
            "lora": need.lora,
            "overhead": need.overhead,
            "parameters": need.parameters,
        },
        "sequences": model.full_contexts,
        "unknown": model.unknown,
        "problems": list(model.problems),
    }
