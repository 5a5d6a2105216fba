from __future__ import annotations

import json
import time
from typing import Any

import pytest

from serving.api.completion import (
    CompletionRequest,
    ModelParameters,
    parse_completion,
    stream_event,
    whole_response,
)
from serving.errors import ContextLengthExceeded, InvalidField, InvalidRequest, ServingError
from serving.wire.messages import End, Sampling

NASTY = 'say "hi"\n\\ \u2028\u2029\x85\x00 Grüße 🎉'


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "p", **fields}).encode()


def parameters(**fields: Any) -> bytes:
    return body(model_parameters=fields)


def refusal(data: bytes) -> ServingError:
    with pytest.raises(ServingError) as caught:
        parse_completion(data)
    return caught.value


def test_defaults() -> None:
    request = parse_completion(body())
    assert (request.model, request.prompt) == ("m", "p")
    assert not request.stream
    assert request.sampling() == Sampling(temperature=0.2, max_tokens=None, stop=())


def test_null_is_the_same_as_absent() -> None:
    names = "temperature max_tokens stop_sequences top_p top_k frequency_penalty"
    nulls = dict.fromkeys(f"{names} presence_penalty reasoning_effort".split())
    spelled = parse_completion(
        body(account_id=None, images=None, stream=None, model_parameters=nulls)
    )
    assert spelled.sampling() == parse_completion(body()).sampling()
    assert parse_completion(body(model_parameters=None)).sampling() == Sampling()


def test_everything_given_reaches_the_engine() -> None:
    data = parameters(
        temperature=0,
        max_tokens=7,
        stop_sequences=["a", "b"],
        top_p=0.5,
        top_k=3,
        frequency_penalty=-2,
        presence_penalty=2,
    )
    assert parse_completion(data).sampling() == Sampling(0.0, 7, ("a", "b"), 0.5, 3, -2.0, 2.0)


def test_both_spellings_at_once() -> None:
    assert parse_completion(parameters(top_p=None, topP=0.5)).sampling().top_p == 0.5
    assert parse_completion(parameters(top_k=None, topK=None)).sampling().top_k is None
    assert "the same" in refusal(parameters(top_p=0.5, topP=0.6)).message


@pytest.mark.parametrize(("top_p", "top_k"), [("top_p", "top_k"), ("topP", "topK")])
def test_both_spellings(top_p: str, top_k: str) -> None:
    sampling = parse_completion(parameters(**{top_p: 0.5, top_k: 3})).sampling()
    assert (sampling.top_p, sampling.top_k) == (0.5, 3)


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (body(promt="x"), "promt"),
        (body(**{"function-x": 1}), "function-x"),
        (parameters(temprature=1), "model_parameters.temprature"),
        (body(images=[{"image_url": "u", "url": "v"}]), "images.0.url"),
    ],
)
def test_an_unknown_field_is_named(data: bytes, param: str) -> None:
    error = refusal(data)
    assert (error.status, error.param) == (422, param)
    assert error.message == f"unknown field '{param}'"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 1.1),
        ("temperature", True),
        ("temperature", "0.5"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", 2**31),
        ("max_tokens", 10**30),
        ("top_p", 0),
        ("top_p", 1.01),
        ("topP", 2),
        ("top_k", 0),
        ("topK", -1),
        ("top_k", 2**31),
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("reasoning_effort", "enormous"),
        ("stop_sequences", list("abcde")),
        ("stop_sequences", [""]),
        ("stop_sequences", "stop"),
        ("stop_sequences", [1]),
    ],
)
def test_a_parameter_out_of_range_is_named(name: str, value: object) -> None:
    error = refusal(parameters(**{name: value}))
    assert isinstance(error, InvalidField)
    assert (error.param or "").startswith(f"model_parameters.{name}")
    assert name in error.message


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b'{"prompt": "p"}', "model"),
        (b'{"model": "m"}', "prompt"),
        (body(model=""), "model"),
        (body(model="m" * 257), "model"),
        (body(model=7), "model"),
        (body(prompt=None), "prompt"),
        (body(prompt=["p"]), "prompt"),
        (body(stream="yes"), "stream"),
        (body(stream=1), "stream"),
        (body(account_id=7), "account_id"),
        (body(account_id="a" * 257), "account_id"),
        (body(model_parameters=[]), "model_parameters"),
    ],
)
def test_a_bad_field_is_named(data: bytes, param: str) -> None:
    error = refusal(data)
    assert (error.status, error.param) == (422, param)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"model": "m", "prompt": "\xff"}',
        b'{"model": "m", "prompt": "\\ud800"}',
        b'{"model": "m", "prompt": "\\udc00 low"}',
        pytest.param(b'{"model": "m", "prompt": ' + b"[" * 60_000, id="deep-prompt"),
        pytest.param(b"[" * 100_000, id="deep"),
        b'{"model": "m", "prompt": "p"} trailing',
    ],
)
def test_what_is_no_json_object_is_malformed(data: bytes) -> None:
    assert type(refusal(data)) is InvalidRequest


@pytest.mark.parametrize(
    "data",
    [
        body(stream="SECRET"),
        body(model=["SECRET"]),
        body(prompt={"SECRET": 1}),
        body(images="SECRET"),
        parameters(temperature="SECRET"),
        parameters(stop_sequences=["SECRET", ""]),
        parameters(reasoning_effort="SECRET"),
        b'{"model": "m", "prompt": "SECRET',
        b'{"model": "m", "prompt": "SECRET" "SECRET"}',
        b'{"model": "m", "prompt": "SECRET \xff"}',
    ],
)
def test_the_input_is_not_repeated(data: bytes) -> None:
    assert "SECRET" not in refusal(data).message


def test_a_huge_field_name_is_not_repeated_whole() -> None:
    assert len(refusal(body(**{"x" * 100_000: 1})).message) < 200


@pytest.mark.parametrize("text", ["", "plain", NASTY, "\ud83d"])
def test_written_json_is_ascii_and_reads_back(text: str) -> None:
    end = End("stop", prompt_tokens=2, completion_tokens=3)
    whole = whole_response(text, end, "m")
    event = stream_event(text)
    last = stream_event(text, end, "m")
    for data in (whole, event, last):
        assert data.isascii()
    for data in (event, last):
        assert data.startswith(b"data: ")
        assert data.endswith(b"\n\n")
        assert len(data.decode().splitlines()) == 2
        assert json.loads(data[6:])["completion"]["text"] == text
    assert json.loads(whole)["completion"]["text"] == text


def test_shape_of_a_whole_response() -> None:
    end = End("length", prompt_tokens=2, completion_tokens=3)
    assert json.loads(whole_response("hi", end, 'm"1')) == {
        "completion": {
            "text": "hi",
            "finish_reason": "length",
            "response_metadata": {"model": 'm"1'},
        },
        "token_usage": {"prompt": 2, "completion": 3, "total": 5},
    }


def test_shape_of_events() -> None:
    assert json.loads(stream_event("hi")[6:]) == {
        "completion": {"text": "hi", "finish_reason": None, "response_metadata": None},
        "token_usage": None,
    }
    end = End("stop", prompt_tokens=1, completion_tokens=2)
    assert json.loads(stream_event("", end, "m")[6:]) == json.loads(whole_response("", end, "m"))


def test_a_body_of_a_million_mistakes_is_refused_at_the_first() -> None:
    junk = b'{"model": "m", "prompt": "p", "images": [%s[]]}' % (b"[]," * 300_000)
    started = time.process_time()
    with pytest.raises(InvalidField, match="images"):
        parse_completion(junk)
    # All of them took seconds, a tenth of this is usual.
    assert time.process_time() - started < 1


def test_a_large_body_is_refused_at_its_first_unknown_field() -> None:
    many = {f"k{n}": n for n in range(200_000)}
    bodies = {
        "k0": {"model": "m", "prompt": "p", **many},
        "model_parameters.k0": {"model": "m", "prompt": "p", "model_parameters": many},
    }
    for param, fields in bodies.items():
        body = json.dumps(fields).encode()
        started = time.process_time()
        with pytest.raises(InvalidField, match=f"unknown field '{param}'") as caught:
            parse_completion(body)
        assert time.process_time() - started < 0.05  # pydantic takes half a second
        assert caught.value.param == param


def test_a_large_body_is_refused_at_its_first_misplaced_list_or_object() -> None:
    rest = {"model": "m", "prompt": "p"}
    for param, fields in {
        "prompt": {"model": "m", "prompt": []},
        "account_id": rest | {"account_id": {}},
        "images.1.image_url": rest | {"images": [{"image_url": "a"}, {"image_url": [1]}]},
        "images.0": rest | {"images": [[]]},
        "model_parameters.temperature": rest | {"model_parameters": {"temperature": {"a": 1}}},
        "model_parameters.stop_sequences.1": rest
        | {"model_parameters": {"stop_sequences": ["a", ["b"]]}},
    }.items():
        body = b" " * 100_000 + json.dumps(fields).encode()
        with pytest.raises(InvalidField, match=f"'{param}': cannot be a list") as found:
            parse_completion(body)
        assert found.value.param == param


def test_a_large_body_has_bounded_fields() -> None:
    rest = {"model": "m", "prompt": "p"}
    image = {"image_url": "data:," + "a" * 9_000_000}
    assert parse_completion(json.dumps(rest | {"images": [image]}).encode()).images
    prompt = "é" * 4_000_000
    assert parse_completion(json.dumps(rest | {"prompt": prompt}, ensure_ascii=False).encode())
    with pytest.raises(ContextLengthExceeded, match=r"'prompt': has 9000002 bytes of JSON"):
        parse_completion(json.dumps(rest | {"prompt": "a" * 9_000_000}).encode())
    accents = rest | {"images": [{"image_url": "data:," + prompt}]}
    with pytest.raises(InvalidField, match=r"'images\.0\.image_url': a URL has only ASCII"):
        parse_completion(json.dumps(accents, ensure_ascii=False).encode())
    for wrong in (
        {"account_id": "a" * 70_000},
        {"images": [{"image_url": "a", "detail": "a" * 70_000}]},
        {"model_parameters": {"temperature": "a" * 70_000}},
    ):
        with pytest.raises(InvalidField, match="has 70002 bytes of JSON; at most 65536"):
            parse_completion(json.dumps(rest | wrong).encode())


def test_a_large_body_has_a_bounded_number_of_images() -> None:
    images = [{"image_url": "data:"}] * 50_000
    with pytest.raises(InvalidField, match="more than 1024 items"):
        parse_completion(json.dumps({"model": "m", "prompt": "p", "images": images}).encode())


def test_a_large_body_takes_the_same_fields_as_a_small_one() -> None:
    parameters = dict.fromkeys(ModelParameters.model_fields)
    parameters |= {"topP": 0.5, "topK": 3, "stop_sequences": ["a"], "temperature": 0}
    del parameters["top_p"], parameters["top_k"]
    fields = dict.fromkeys(CompletionRequest.model_fields)
    fields |= {"model": "m", "prompt": "p" * 100_000, "model_parameters": parameters}
    parsed = parse_completion(json.dumps(fields).encode())
    assert (parsed.sampling().top_p, parsed.sampling().top_k) == (0.5, 3)
    fields["model_parameters"] = {"top_p": 0.5, "top_k": 3}
    assert parse_completion(json.dumps(fields).encode()).sampling().top_k == 3


def test_what_else_is_wrong_with_a_large_body_is_told_as_of_a_small_one() -> None:
    padding = "p" * 100_000
    for wrong in ({"stream": 3}, {"prompt": 5}, {"model_parameters": 4}, {"images": "a"}):
        small = {"model": "m", "prompt": "p"} | wrong
        large = small | {"account_id": padding} | wrong
        del large["account_id"]
        large["model"] = "m"
        body = json.dumps(large).encode()
        with pytest.raises(ServingError) as expected:
            parse_completion(body)
        with pytest.raises(ServingError) as caught:
            parse_completion(b" " * 100_000 + body)
        assert (caught.value.message, caught.value.param) == (
            expected.value.message,
            expected.value.param,
        )
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        parse_completion(b'{"model": "m", ' + b" " * 100_000)
