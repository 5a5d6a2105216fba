"""The check of an OpenAI body before an engine's app sees it.

It closes three classes at once: values that an engine's core cannot be sent (`values.py`), kinds of
value that an engine's own validation takes for granted (`fields.py`), and sizes and counts that
make others wait (`limits.py`, `schemas.py`). Whatever else is wrong is for the app to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving.engine.bodies import blocks
from serving.engine.bodies.audio import check_audio
from serving.engine.bodies.fields import Kinds, check_kind
from serving.engine.bodies.limits import BodyLimits
from serving.engine.bodies.pairs import DOCUMENTS, QUERIES, pairs_of, texts_of
from serving.engine.bodies.pairs import FIELDS as PAIR_FIELDS
from serving.engine.bodies.pairs import PATHS as PAIR_PATHS
from serving.engine.bodies.responses import PATH as RESPONSES
from serving.engine.bodies.responses import chat_field, check_response, is_constrained
from serving.engine.bodies.schemas import FIELDS, Schemas
from serving.engine.bodies.values import check_structure, check_values, read, read_fields, shown
from serving.errors import ContextLengthExceeded, InvalidRequest

# Shows a chat's prompt, with its tools, and answers nothing.
TOKENIZE = "/tokenize"
# What an engine is to read as text or tokens; its size is measured against the context.
TEXTS = frozenset(
    ("prompt", "input", "messages", "tokens", "suffix", "documents", "instructions", "system")
)
# The fields of those that may hold several prompts.
_PROMPTS = ("prompt", "input", "tokens")
_CONSTRAINTS = ("response_format", "structured_outputs", "tools", "output_config")
_STRINGS = frozenset(("stop", "stop_sequences", "bad_words"))
# How many log probabilities of each token an answer has: their number, or the tokens themselves.
_LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs", "logprob_token_ids")


class Checked(NamedTuple):
    """What is known of a body that passed.

    `constrained`: the answer has to fit a grammar of the caller's.
    """

    constrained: bool = False


class BodyCheck:
    """Checks bodies of one engine.

    Args:
        endpoints: the fields of each path's bodies and the kinds of value they take.
        context: of the model, in tokens.
        prompt_chars: a prompt with more characters fits no context; None: not known.
        sequences: choices of all prompts of a request together that the engine's queue takes;
            None: any number.
        reserved: entries of fields that are objects, which the engine sets itself.
        tools: the model can call tools.
    """

    def __init__(
        self,
        limits: BodyLimits,
        endpoints: Mapping[str, Mapping[str, Kinds]],
        *,
        context: int,
        prompt_chars: int | None,
        sequences: int | None,
        reserved: Mapping[str, frozenset[str]],
        tools: bool = True,
    ) -> None:
        self._tools = tools
        self._reserved = reserved
        self._limits = limits
        self._endpoints = endpoints
        self._token_ids = max(limits.token_ids, context)
        self._prompt_chars = prompt_chars
        self._sequences = sequences
        self._context = context

    def check(self, path: str, body: bytes) -> Checked:
        """
        Raises:
            InvalidRequest: which field the engine's app is not to see, and why.
        """
        limits = self._limits
        check_structure(body, limits)
        sizes = read_fields(body)
        scores = path in PAIR_PATHS
        texts = PAIR_FIELDS if scores else TEXTS
        if len(sizes) > limits.fields:
            raise InvalidRequest(
                f"the body has {len(sizes)} fields; at most {limits.fields} are taken"
            )
        for name, size in sizes.items():
            most = limits.field_bytes
            if name in texts:
                # Images are measured by who loads them.
                chat = name == chat_field(path)
                most = len(body) if chat and _has_media(body) else limits.text_bytes
            if size > most:
                _refuse(name, f"has {size} bytes of JSON; at most {most} are taken")
        given = read(body)
        fields = self._endpoints.get(path, {})
        schemas = Schemas(limits)
        for name, value in given.items():
            check_kind(name, value, fields)
            most = self._token_ids + limits.values if name in texts else limits.values
            check_values(name, value, most, limits)
            if name in texts:
                continue
            self._check_size(name, value)
            if name in FIELDS:
                schemas.check(name, value)
        if path == RESPONSES:
            check_response(given)
        if path in blocks.PATHS:
            blocks.check_blocks(given)
        if scores:
            self._check_pairs(given)
        else:
            self._check_texts(path, given)
        calls = path != TOKENIZE and _may_call(given.get("tool_choice"))
        if not self._tools and given.get("tools") and calls:
            _refuse("tools", "this model takes no tools; its spec has no `tool_parser`")
        constrained = any(given.get(name) for name in _CONSTRAINTS) or is_constrained(given)
        return Checked(constrained=constrained)

    def check_form(self, content_type: str, body: bytes) -> Checked:
        """Check a form with a recording; raises as `check`."""
        check_audio(content_type, body, self._limits)
        return Checked()

    def _check_size(self, name: str, value: Any) -> None:
        limits = self._limits
        if type(value) is str and len(value) > limits.string_chars:
            _refuse(name, f"has {len(value)} characters; at most {limits.string_chars} are taken")
        if type(value) is list:
            counts = {"tools": limits.tools, "stop": limits.stops, "stop_sequences": limits.stops}
            most = counts.get(name, limits.items)
            if len(value) > most:
                _refuse(name, f"has {len(value)} items; at most {most} are taken")
        if type(value) is dict:
            if len(value) > limits.entries:
                _refuse(name, f"has {len(value)} entries; at most {limits.entries} are taken")
            for taken in self._reserved.get(name, frozenset()) & value.keys():
                _refuse(name, f"has '{taken}', which is a field of its own")
        if name in _STRINGS:
            for one in value if type(value) is list else (value,):
                if type(one) is str and len(one) > limits.stop_chars:
                    _refuse(
                        name,
                        f"has a string of {len(one)} characters; at most {limits.stop_chars} are "
                        "taken",
                    )

    def _check_texts(self, path: str, given: Mapping[str, Any]) -> None:
        prompts, chat = 1, chat_field(path)
        for name in _PROMPTS:
            if name == chat:
                continue
            found = given.get(name)
            if type(found) is list and found and type(found[0]) is not int and name != "tokens":
                prompts = max(prompts, len(found))
                if len(found) > self._limits.prompts:
                    _refuse(
                        name, f"has {len(found)} prompts; at most {self._limits.prompts} are taken"
                    )
                for prompt in found:
                    self._check_prompt(name, prompt)
            else:
                self._check_prompt(name, found)
        chats = given.get("messages")
        if type(chats) is list and chats and type(chats[0]) is list:
            prompts = max(prompts, len(chats))
        for name in (chat, "documents", "suffix", "instructions", "system"):
            self._check_prompt(name, given.get(name))
        self._check_choices(given, prompts)

    def _check_choices(self, given: Mapping[str, Any], prompts: int) -> None:
        limits, name = self._limits, "n"
        n = _whole_number(given.get("n", 1))
        if (best_of := _whole_number(given.get("best_of", 1))) > n:
            name, n = "best_of", best_of
        if n > limits.choices:
            _refuse(name, f"is {n}; at most {limits.choices} choices of a prompt are taken")
        together = n * prompts
        asked = f"is {n}" if prompts == 1 else f"is {n} for {prompts} prompts"
        if n > 1 and together > limits.completions:
            _refuse(name, f"{asked}; at most {limits.completions} choices of a request are taken")
        if self._sequences is not None and together > self._sequences:
            most = self._sequences
            _refuse(name, f"{asked}; this model takes at most {most} choices and prompts at a time")
        asked_for = max((_logprobs(given.get(field)), field) for field in _LOGPROBS)
        if asked_for[0] * together > limits.logprobs:
            _refuse(
                asked_for[1],
                f"asks for {asked_for[0]} log probabilities of each token, for {together} choices; "
                f"at most {limits.logprobs} for all choices together are taken",
            )

    def _check_pairs(self, given: Mapping[str, Any]) -> None:
        limits = self._limits
        for name in (*QUERIES, *DOCUMENTS):
            texts = texts_of(given, name)
            if len(texts) > limits.prompts:
                _refuse(name, f"has {len(texts)} texts; at most {limits.prompts} are taken")
            for text in texts:
                if type(text) is not str:
                    # What vLLM takes beside text are images, which models that score get none of.
                    _refuse(name, "must be a text or a list of texts")
                self._check_chars(name, len(text))
        asked = pairs_of(given)
        side = next((name for name in DOCUMENTS if name in given), DOCUMENTS[0])
        if asked.characters > limits.pair_chars:
            _refuse(
                side,
                f"the {asked.number} pairs have {asked.characters} characters, their query counted "
                f"with each; at most {limits.pair_chars} are taken",
            )
        if self._sequences is not None and asked.number > self._sequences:
            _refuse(
                side,
                f"has {asked.number} pairs; this model takes at most {self._sequences} of all "
                "requests",
            )

    def _check_prompt(self, name: str, prompt: Any) -> None:
        """Check one text, list of token IDs, chat or list of chats."""
        if type(prompt) is str:
            self._check_chars(name, len(prompt))
        elif type(prompt) is list and prompt and type(prompt[0]) is int:
            if len(prompt) > self._token_ids:
                _refuse(name, f"has {len(prompt)} token IDs; at most {self._token_ids} are taken")
        elif type(prompt) is list:
            chats = [chat if type(chat) is list else [chat] for chat in prompt]
            self._check_chat(name, [message for chat in chats for message in chat])
        elif type(prompt) is dict:
            self._check_chat(name, [prompt])

    def _check_chat(self, name: str, messages: list[Any]) -> None:
        limits = self._limits
        if len(messages) > limits.messages:
            _refuse(name, f"has {len(messages)} messages; at most {limits.messages} are taken")
        parts = 0
        for message in messages:
            if type(message) is dict:
                for value in message.values():
                    if type(value) is list:
                        parts += len(value) + sum(map(blocks.nested, value))
        if parts > limits.parts:
            _refuse(
                name, f"has {parts} content parts and tool calls; at most {limits.parts} are taken"
            )
        self._check_chars(name, _characters(messages))

    def _check_chars(self, name: str, characters: int) -> None:
        most = self._prompt_chars
        if most is not None and characters > most:
            raise ContextLengthExceeded(
                f"'{name}': has {characters} characters; at most {most} are taken, which no "
                f"tokenization fits into the context of {self._context} tokens",
                param=name,
            )


def _refuse(name: str, message: str) -> None:
    raise InvalidRequest(f"'{shown(name)}': {message}", param=shown(name))


def _has_media(body: bytes) -> bool:
    return b'"image' in body or b'"input_image' in body


def _characters(value: Any) -> int:
    """Of all strings in a chat but the URLs of its images."""
    characters, todo = 0, [value]
    while todo:
        item = todo.pop()
        if type(item) is str:
            characters += len(item)
        elif type(item) is list:
            todo += item
        elif type(item) is dict:
            skipped = "source" if item.get("type") == "image" else "image_url"
            todo += [inside for key, inside in item.items() if key != skipped]
    return characters


def _logprobs(value: Any) -> int:
    return len(value) if type(value) is list else 0 if value is None else _whole_number(value)


def _may_call(tool_choice: Any) -> bool:
    """False if the caller rules out that a tool is called, in OpenAI's or in Anthropic's words."""
    return tool_choice not in ("none", {"type": "none"})


def _whole_number(value: Any) -> int:
    """As vLLM reads it: "3" and 3.0 are 3. What is no number is for vLLM to refuse."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 1
