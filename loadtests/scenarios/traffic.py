"""What is sent: models, accounts, prompts and answers, and how callers behave."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from loadtests.load.planned import Endpoint
from loadtests.scenarios.distributions import Distribution, Fixed
from loadtests.scenarios.fields import Part, Strict


class Zipf(Strict):
    """Custom IDs, of which few are popular: the n-th is drawn in proportion to n ** -exponent.

    They are made by `pattern` and `count`, or listed in `ids`, or in `file`, one in a line.
    """

    pattern: str | None = Field(
        default=None, description="with {n}, which counts from 0; '{n:05d}' pads it"
    )
    count: PositiveInt | None = Field(default=None, description="how many `pattern` makes")
    ids: tuple[str, ...] = ()
    file: str | None = None
    exponent: float = Field(default=1.0, ge=0)


class Prompt(Strict):
    """The user's part of a request."""

    tokens: Distribution = Fixed(value=64)
    # Words by default: about a token each in most vocabularies. With a tokenizer so many tokens
    # exactly, without those that the service adds (a beginning of text, a chat template).
    file: str | None = Field(
        default=None, description="a text per line (JSONL: `prompt`, `reference`), drawn in turn"
    )
    tokenizer: str | None = Field(default=None, description="tokenizer.json: lengths are exact")


class SharedPrefix(Strict):
    """A system prompt that many requests share, as of one application."""

    tokens: PositiveInt
    groups: PositiveInt = 1
    exponent: float = Field(
        default=0.0, ge=0, description="above 0: some groups are popular (Zipf)"
    )


class Session(Strict):
    """A conversation: each turn waits for the last answer, thinks, and sends the whole history."""

    turns: Distribution
    think_s: Distribution = Fixed(value=1)


class Cancel(Strict):
    """Callers that leave while the answer streams."""

    share: Part = Field(gt=0, le=1)
    after_tokens: Distribution | None = None
    after_s: Distribution | None = None


class Read(Strict):
    """Callers that read slowly."""

    share: Part = Field(default=1, gt=0, le=1)
    bytes_per_s: PositiveFloat


class Images(Strict):
    """Images that go along with a prompt (chat and Create Completion), noise of this size."""

    count: Distribution = Fixed(value=1)
    width: PositiveInt = 224
    height: PositiveInt = 224


class Slo(Strict):
    """What a single request must meet to count as good (goodput)."""

    ttft_ms: PositiveFloat | None = None
    tpot_ms: PositiveFloat | None = None
    e2e_ms: PositiveFloat | None = None


class Account(Strict):
    """Who asks."""

    name: str
    weight: PositiveFloat = 1
    key_env: str | None = Field(default=None, description="environment variable with its API key")
    headers: dict[str, str] = Field(default={})


class Traffic(Strict):
    """One kind of requests."""

    name: str
    weight: PositiveFloat = 1
    endpoint: Endpoint = "create_completion"
    stream: bool = True
    models: dict[str, PositiveFloat] = Field(default={}, description="ID to weight")
    custom_ids: Zipf | None = None
    accounts: tuple[Account, ...] = ()
    prompt: Prompt = Prompt()
    shared_prefix: SharedPrefix | None = None
    output: Distribution = Fixed(value=64)
    ignore_eos: bool = Field(
        default=False, description="generate all tokens of `output` (vLLM's field, /v1 only)"
    )
    session: Session | None = None
    images: Images | None = None
    cancel: Cancel | None = None
    read: Read | None = None
    priority: int | None = None
    slo: Slo = Slo()
    body: dict[str, Any] = Field(
        default={}, description="fields that go into every body as they are"
    )
