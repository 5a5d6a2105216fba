"""Writes docs/models.md from the catalogue: `python -m docs.models [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.catalogue.load import seed_catalogue
from serving.catalogue.memory import GIB, UTILIZATION, shape
from serving.catalogue.plan import plan_model
from serving.catalogue.spec import AdapterSpec, AnySpec, EngineSpec, RetiredSpec, UpstreamSpec

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "models.md"
NOTHING = "nothing yet"


@dataclass(frozen=True)
class Proof:
    """What a test shows. It is told only while the test's file exists."""

    what: str
    test: str


SERVED = "tests/cluster/test_reference.py"
ARCHITECTURES = Proof(
    "a tiny model of this class: greedy tokens equal Hugging Face's",
    "tests/cluster/test_architectures.py",
)
TRANSFORMERS = Proof(
    "a tiny model of this class on the transformers engine: answers equal Hugging Face's",
    "tests/gateway/test_transformers.py",
)
SERVED_BASE = Proof("a tiny model of this class, served: answers equal vLLM's", SERVED)
SERVED_ADAPTER = Proof("tiny adapters on a tiny Llama, served: answers equal vLLM's", SERVED)
MERGED = Proof(
    "a tiny adapter on a tiny base of this class: greedy tokens equal the merged model's",
    "tests/cluster/test_architectures.py",
)
UPSTREAM = Proof("a local server that speaks the provider's dialect", "tests/gateway/upstream")
RETIRED = Proof("the 410, its date and successor", "tests/gateway/test_models.py")

BY_ARCHITECTURE: dict[str, tuple[Proof, ...]] = {
    "LlamaForCausalLM": (SERVED_BASE, ARCHITECTURES),
    "MistralForCausalLM": (SERVED_BASE, ARCHITECTURES),
    "MixtralForCausalLM": (ARCHITECTURES,),
    "Phi3ForCausalLM": (ARCHITECTURES,),
    "FalconForCausalLM": (ARCHITECTURES,),
    "GPT2LMHeadModel": (ARCHITECTURES,),
    "MPTForCausalLM": (TRANSFORMERS,),
    "T5ForConditionalGeneration": (TRANSFORMERS,),
}

MERGED_CLASSES = ("MistralForCausalLM", "Phi3ForCausalLM")

HEAD = f"""# Models

Every model ID of the API, from the catalogue (`serving/catalogue/seed/`). This file is generated:
change the catalogue and run `python -m docs.models`.

None of them is served until a models file names it (docs/operations.md, "Models files"); a request
for one that is not gets a 404 that says how to deploy it, and one for a retired model a 410.

## Open weights

`certainty` is of the repository: **zoo** is LLM Engine's own mapping, **known** the well-known
repository of that name, **guess** unconfirmed. `context` is what is served by default, and in
brackets what the model takes where that needs larger GPUs. `need` is computed from the model's
config and that context, in GiB on each GPU of a replica, of which an engine may use
{UTILIZATION:.0%} (`serving plan` shows the parts). `tools` is vLLM's parser of the calls that the
model was trained to write; a model without one takes no tools. No entry pins a revision: none was
confirmed; set `revision` before production.
"""

HOSTED = """
## Hosted by a provider

Dates and successors are the provider's, from the page named or a public copy of it, in November
2026. Providers change them; an operator's file can override both, and serve a retired ID from
another model with `aliases: {gpt-4: llama-3-8b-instruct}` (the response names that model).
"""

TAIL = """
## Tests

{tests}

## What is not proven

- No weights of any model above were downloaded: repositories, licences and chat templates are from
  LLM Engine's mapping and the publishers' pages. What is proven is proven on tiny models of the
  same class, with random or self-trained weights.
- The tool parsers are what vLLM's documentation and Mistral's model card name for these models. The
  parser of the tiny model is proven with the clients' own packages; those of the models above are
  not, and vLLM refuses to start one whose tokenizer lacks the parser's token.
- Entries whose certainty is **guess** may be another model than the one the API once meant.
- The sizes in `config` are the published ones, written down by hand. The parameter counts that
  follow from them are tested against the published counts, the memory need against no GPU.
- The vocabulary of the LLM-jp models (50688) is a guess above the tokenizer's 50570 entries.
- No hosted provider was called. Gemini's successors are from memory, not from Google's page.
- "{nothing}" in a row means that no test of this repository is about that class.
"""


def document() -> str:
    """The whole file."""
    models = seed_catalogue().models
    by_id = {model.id: model for model in models}
    shown: dict[Proof, None] = {}
    open_rows, hosted_rows = [], []
    for model in models:
        proofs = [proof for proof in proofs_of(model, by_id) if (ROOT / proof.test).exists()]
        shown |= dict.fromkeys(proofs)
        proven = "; ".join(proof.what for proof in proofs) or NOTHING
        if isinstance(model, EngineSpec):
            open_rows.append([*engine_cells(model), proven, model.note])
        elif isinstance(model, AdapterSpec):
            open_rows.append([*adapter_cells(model, by_id), proven, model.note])
        else:
            hosted_rows.append([*hosted_cells(model), proven, model.note])
    tests = "\n".join(f"- {proof.what}: `{proof.test}`" for proof in shown)
    parts = (
        HEAD,
        *table(
            *("ID", "route", "repository", "certainty", "architecture", "context", "GPUs", "need"),
            *("prompt", "tools", "LoRA", "licence", "proven", "note"),
            rows=open_rows,
        ),
        HOSTED,
        *table(
            *("ID", "route", "provider", "context", "until", "successor", "published", "proven"),
            "note",
            rows=hosted_rows,
        ),
        TAIL.format(tests=tests, nothing=NOTHING),
    )
    return "\n".join(parts)


def proofs_of(model: AnySpec, by_id: dict[str, AnySpec]) -> tuple[Proof, ...]:
    if isinstance(model, UpstreamSpec):
        return (UPSTREAM,)
    if isinstance(model, RetiredSpec):
        return (RETIRED,)
    if isinstance(model, AdapterSpec):
        base = by_id[model.base]
        merged = isinstance(base, EngineSpec) and base.architecture in MERGED_CLASSES
        return (MERGED,) if merged else (SERVED_ADAPTER,)
    return BY_ARCHITECTURE.get(model.architecture or "", ())


def engine_cells(spec: EngineSpec) -> list[str | None]:
    planned = plan_model(spec, spec.gpu_memory_gib)
    longest = shape(spec).longest
    context = str(spec.context)
    if longest is not None and longest > spec.context:
        context += f" ({longest})"
    prompt = spec.prompt_style + (", own template" if spec.chat_template else "")
    return [
        f"`{spec.id}`",
        f"engine ({'vLLM' if spec.runtime == 'vllm' else spec.runtime})",
        f"`{spec.weights}`",
        spec.certainty,
        spec.architecture,
        context,
        f"{planned.gpus} × {planned.gpu_memory_gib:g} GiB",
        f"{planned.need.total / GIB:.1f}" if planned.need else None,
        prompt,
        parsers(spec),
        "yes" if spec.lora else "no",
        spec.licence,
    ]


def adapter_cells(spec: AdapterSpec, by_id: dict[str, AnySpec]) -> list[str | None]:
    base = by_id[spec.base]
    assert isinstance(base, EngineSpec)
    of_base = "its base's"
    return [
        f"`{spec.id}`",
        f"adapter on `{base.id}`",
        f"`{spec.weights}`",
        spec.certainty,
        base.architecture,
        str(base.context),
        of_base,
        of_base,
        (spec.prompt_style or base.prompt_style) + (", own template" if spec.chat_template else ""),
        parsers(base),
        "is one",
        spec.licence,
    ]


def parsers(spec: EngineSpec) -> str:
    """The parsers of an engine model, which its adapters share."""
    found = [f"`{spec.tool_parser}`"] if spec.tool_parser else []
    found += [f"reasoning: `{spec.reasoning_parser}`"] if spec.reasoning_parser else []
    return ", ".join(found) or "no"


def hosted_cells(spec: UpstreamSpec | RetiredSpec) -> list[str | None]:
    if isinstance(spec, UpstreamSpec):
        until = spec.shutdown_on.isoformat() if spec.shutdown_on else None
        context = str(spec.context) if spec.context else None
        return [f"`{spec.id}`", "upstream", spec.provider, context, until, None, spec.source]
    successor = f"`{spec.successor}`" if spec.successor else None
    return [
        *(f"`{spec.id}`", "retired (410)", spec.provider, None),
        *(spec.retired_on, successor, spec.source),
    ]


def table(*headers: str, rows: Iterable[Sequence[str | None]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield "|" + "---|" * len(headers)
    for row in rows:
        cells = ("" if cell is None else cell.replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> int:
    text = document()
    if "--check" in arguments:
        if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{FILE} is stale; run `python -m docs.models`\n")
        return 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
