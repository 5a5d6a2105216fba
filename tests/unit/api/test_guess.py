"""About how many tokens something has."""

from __future__ import annotations

from serving.api.guess import IMAGE_TOKENS, prompt_tokens, written


def test_an_image_is_not_taken_for_text() -> None:
    assert prompt_tokens(b'{"url": "data:image/png;base64,' + b"A" * 1_000_000) == IMAGE_TOKENS
    assert prompt_tokens(1_000_000 * b"x") == 250_001
    assert prompt_tokens(1_000_000 * b"x", 4096) == 4096


def test_what_a_model_has_written_is_text_arguments_and_names_of_tools() -> None:
    assert written({"role": "assistant", "content": "Hello", "refusal": None}) == 5
    call = {"id": "call_12345", "type": "function", "index": 0}
    assert written([{"tool_calls": [{**call, "function": {"name": "f", "arguments": "{}"}}]}]) == 3
    assert written({"type": "thinking_delta", "thinking": "hm", "signature": "x" * 99}) == 2
    assert written("\u00e9\ud800") == 5, "bytes; JSON may have half of a pair"
    assert written(None) == written(7) == 0
