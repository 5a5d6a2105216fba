"""The API is what its description says: every example runs, and schemathesis finds nothing."""

from __future__ import annotations

import os
import subprocess

import pytest

from serving.api.endpoints import NAME
from serving.api.openapi.document import JSON, text_of
from tests.asking import ASKED, DOCUMENT, Asking
from tests.e2e.conftest import sdk_python
from tests.live import KEY, Server

EXAMPLES = [
    pytest.param(asking, name, id=f"{asking.endpoint.path} {name}")
    for asking in ASKED
    if text_of(asking.endpoint).profile
    for name in text_of(asking.endpoint).examples
]
# What a model refuses of a valid body, no schema can say, so `positive_data_acceptance` is left
# out: it wants every body that fits its schema to be answered.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection,"
    "unsupported_method,allow_header_conformance,ignored_auth"
)
# How many cases for each endpoint, and which ways to make them. `make fuzz-api` sets more.
CASES = os.environ.get("SERVING_API_CASES", "10")
PHASES = os.environ.get("SERVING_API_PHASES", "examples,fuzzing")


@pytest.mark.parametrize(("asking", "name"), EXAMPLES)
def test_the_examples_run(live: Server, asking: Asking, name: str) -> None:
    path = asking.endpoint.path
    operation = DOCUMENT["paths"][path]["post"]
    body = operation["requestBody"]["content"][JSON]["examples"][name]["value"]
    url = live.url + path
    parameters = operation.get("parameters", [])
    if NAME in path:
        url = url.replace(NAME, parameters[0]["example"])
    query = {at["name"]: at["example"] for at in parameters if at["in"] == "query"}
    response = live.client.post(url, json=body, params=query)
    assert response.status_code == 200, response.text
    asking.check_schema(response)


def test_schemathesis_finds_nothing(live: Server) -> None:
    program = sdk_python("schemathesis").parent / "st"
    done = subprocess.run(
        [
            *(str(program), "run", f"{live.url}/openapi.json", "-H", f"x-api-key: {KEY}"),
            *("--checks", CHECKS, "--phases", PHASES, "--max-examples", CASES, "--seed", "1"),
            *("--request-timeout", "60", "--generation-database", "none", "--no-color"),
            *("--continue-on-failure", "--warnings", "off"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(live.folder)},
        cwd=live.folder,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout
