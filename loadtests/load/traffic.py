"""One kind of requests, ready to be made one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from loadtests.load.draw import Length, Number, Weighted, length, number, zipf_weights
from loadtests.load.images import noise
from loadtests.load.planned import Planned, Turns
from loadtests.load.prompts import Line, lines_of
from loadtests.load.seeds import numbered, seed_of
from loadtests.load.traces import BLOCK_TOKENS, Row
from loadtests.load.vocabulary import COMMON, vocabulary_of
from loadtests.load.words import Words
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.traffic import Account, Traffic, Zipf

# Shared prefixes that are kept; another one takes microseconds to make again.
PREFIXES = 1024


@dataclass(frozen=True, slots=True)
class Slot:
    """A session as the schedule has it, before its texts are made."""

    phase: str
    session: int
    index: int  # of its first turn
    seed: int
    at_s: float | None
    turns: int
    file_line: int  # which of a file's prompts comes first
    row: Row | None = None


class Source:
    """Makes the sessions of one traffic. What it makes depends on the slot and the seed alone."""

    def __init__(self, scenario: Scenario, traffic: Traffic, keys: Mapping[str, str]) -> None:
        """Prepare everything that sessions share.

        `keys` is the environment that API keys are read from. Raises ScenarioError for a variable
        or a file that is not there.
        """
        self._traffic = traffic
        self._models = _models(traffic)
        self._accounts = _accounts(scenario, traffic, keys)
        self._turns: Length = length(traffic.session.turns) if traffic.session else lambda rng: 1
        self._think: Number = number(traffic.session.think_s) if traffic.session else lambda rng: 0
        self._output = length(traffic.output)
        self._tokens = length(traffic.prompt.tokens)
        self._lines = None if traffic.prompt.file is None else lines_of(traffic.prompt.file)
        self._words = _words(traffic.prompt.tokenizer, scenario.seed)
        self._blocks = seed_of(scenario.seed, "blocks")
        self._rng = Random()
        self._inner = Random()
        self._prefix = _Prefixes(scenario.seed, traffic, self._words)
        cancel, images = traffic.cancel, traffic.images
        self._cancel_tokens = (
            length(cancel.after_tokens) if cancel and cancel.after_tokens else None
        )
        self._cancel_s = number(cancel.after_s) if cancel and cancel.after_s else None
        self._images = length(images.count) if images else None

    @property
    def name(self) -> str:
        """The traffic's name."""
        return self._traffic.name

    def turns(self, rng: Random) -> int:
        """Draw how many turns a session has."""
        return self._turns(rng)

    def session(self, slot: Slot) -> Turns:
        """Make a session."""
        rng = self._rng
        # One generator seeded again and again: to make one takes longer.
        rng.seed(slot.seed)
        model = self._models.draw(rng)
        account, key = self._accounts.draw(rng)
        system = self._prefix.draw(rng)
        return tuple(
            self._turn(slot, turn, model, account, key, system) for turn in range(slot.turns)
        )

    def _turn(
        self,
        slot: Slot,
        turn: int,
        model: str,
        account: Account,
        key: str | None,
        system: str | None,
    ) -> Planned:
        rng, traffic = self._rng, self._traffic
        line = self._prompt(slot, turn)
        tokens, seconds = self._leaves()
        read = traffic.read
        slow = read is not None and (read.share == 1 or rng.random() < read.share)
        return Planned(
            index=slot.index + turn,
            due_s=None if turn else slot.at_s,
            phase=slot.phase,
            traffic=traffic.name,
            endpoint=traffic.endpoint,
            stream=traffic.stream,
            model=model,
            prompt=line.prompt,
            max_tokens=self._output(rng) if slot.row is None else slot.row.output_tokens,
            system=system,
            account=account.name,
            key=key,
            headers=account.headers,
            images=self._pictures(),
            ignore_eos=traffic.ignore_eos,
            priority=traffic.priority,
            session=slot.session,
            turn=turn,
            think_s=self._think(rng) if turn else 0.0,
            cancel_after_tokens=tokens,
            cancel_after_s=seconds,
            read_bytes_per_s=read.bytes_per_s if read is not None and slow else None,
            reference=line.reference,
            extra=traffic.body,
        )

    def _prompt(self, slot: Slot, turn: int) -> Line:
        if slot.row is not None and slot.row.blocks:
            return Line(self._of_blocks(slot.row))
        if self._lines is not None:
            return self._lines[(slot.file_line + turn) % len(self._lines)]
        tokens = self._tokens(self._rng) if slot.row is None else slot.row.prompt_tokens
        return Line(self._words.text(self._rng, tokens))

    def _of_blocks(self, row: Row) -> str:
        """Return a prompt of blocks: the same hash ID is the same text, in every request."""
        parts, left = [], row.prompt_tokens
        for block in row.blocks:
            self._inner.seed(numbered(self._blocks, block))
            parts.append(self._words.text(self._inner, min(left, BLOCK_TOKENS)))
            left -= BLOCK_TOKENS
        if left > 0:  # there are fewer hash IDs than blocks: the rest is its own
            parts.append(self._words.text(self._rng, left))
        return " ".join(parts)

    def _leaves(self) -> tuple[int | None, float | None]:
        """Draw after how many tokens, and seconds, the caller leaves; None if it stays."""
        cancel = self._traffic.cancel
        if cancel is None or (cancel.share < 1 and self._rng.random() >= cancel.share):
            return None, None
        return (
            None if self._cancel_tokens is None else self._cancel_tokens(self._rng),
            None if self._cancel_s is None else self._cancel_s(self._rng),
        )

    def _pictures(self) -> tuple[str, ...]:
        images = self._traffic.images
        if images is None or self._images is None:
            return ()
        return tuple(
            noise(images.width, images.height, self._rng) for _ in range(self._images(self._rng))
        )


class _Prefixes:
    """The system prompts that the requests of one traffic share."""

    def __init__(self, seed: int, traffic: Traffic, words: Words) -> None:
        self._shared = traffic.shared_prefix
        if self._shared is not None:
            count, tokens = self._shared.groups, self._shared.tokens
            self._groups = Weighted(range(count), zipf_weights(count, self._shared.exponent))

            def text(group: int) -> str:
                return words.text(Random(seed_of(seed, "prefix", traffic.name, group)), tokens)

            self._text = lru_cache(PREFIXES)(text)

    def draw(self, rng: Random) -> str | None:
        """Return one of them; None if there are none."""
        return None if self._shared is None else self._text(self._groups.draw(rng))


def _models(traffic: Traffic) -> Weighted[str]:
    ids = traffic.custom_ids
    if ids is None:
        return Weighted(tuple(traffic.models), tuple(traffic.models.values()))
    names = names_of(ids)
    return Weighted(names, zipf_weights(len(names), ids.exponent))


def names_of(ids: Zipf) -> tuple[str, ...]:
    """Return custom IDs, the most popular one first."""
    if ids.pattern is not None:
        return tuple(ids.pattern.format(n=n) for n in range(ids.count or 0))
    return ids.ids or tuple(line.prompt.strip() for line in lines_of(ids.file or ""))


def _accounts(
    scenario: Scenario, traffic: Traffic, keys: Mapping[str, str]
) -> Weighted[tuple[Account, str | None]]:
    own = keys.get(scenario.target.key_env)
    found = []
    for account in traffic.accounts or (Account(name=""),):
        if account.key_env is not None and account.key_env not in keys:
            raise ScenarioError(
                f"traffic.{traffic.name}.accounts.{account.name}: the environment has no "
                f"{account.key_env}; export it, with the account's API key"
            )
        found.append((account, own if account.key_env is None else keys[account.key_env]))
    return Weighted(found, [account.weight for account, _ in found])


@lru_cache(maxsize=8)
def _words(tokenizer: str | None, seed: int) -> Words:
    vocabulary = COMMON if tokenizer is None else vocabulary_of(tokenizer)
    return Words(vocabulary, seed_of(seed, "words", tokenizer or ""))
