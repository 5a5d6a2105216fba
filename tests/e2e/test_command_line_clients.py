"""Programs that people point at an OpenAI endpoint, unmodified and as they are by default.

`vllm bench` is that of the main environment. lm-eval, guidellm and aiperf have most of a gigabyte
each: `make test-sdk` has them, `make test` does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import node_script, sdk_python
from tests.live import BASE, INSTRUCT, KEY, Server

WEIGHTS = Path(__file__).parents[2] / "local_models" / "weights"
QUESTION, ANSWER = "What is the capital of France?", " The capital of France is Paris."
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program in a folder of the test's own and returns what it writes."""

    def run_it(*command: str, stdin: str = "", **env: str) -> str:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        done = subprocess.run(
            command,
            input=stdin,
            env={**kept, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", **env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    return run_it


@pytest.fixture
def llm(live: Server, tmp_path: Path, run: Run) -> Run:
    """`llm` with the instruct model as one of its OpenAI-compatible models."""
    (tmp_path / "keys.json").write_text(json.dumps({"serving": KEY}))
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: tiny, model_name: {INSTRUCT}, api_base: '{live.url}/v1', "
        "api_key_name: serving, supports_schema: true, supports_tools: true}\n"
    )
    program = str(sdk_python("llm").parent / "llm")

    def ask(*words: str) -> str:
        command = (program, "-m", "tiny", "--no-log", "-o", "temperature", "0", *words)
        return run(*command, LLM_USER_PATH=str(tmp_path))

    return ask


def test_llm_answers_whole_and_streamed(llm: Run) -> None:
    assert llm("--no-stream", QUESTION) == ANSWER + "\n"
    assert llm(QUESTION) == ANSWER + "\n"


def test_llm_asks_for_a_schema(llm: Run) -> None:
    answer = json.loads(llm("--schema", "name, capital", QUESTION))
    assert answer == {"name": "France", "capital": "Paris"}


def test_llm_calls_a_tool_and_goes_on(llm: Run) -> None:
    tool = 'def get_weather(city: str) -> str:\n    "The weather."\n    return "sunny"'
    answer = llm("--functions", tool, "What is the weather in Paris?")
    assert answer == " It is sunny in Paris.\n"


def test_the_ai_sdk_by_its_defaults(live: Server, run: Run) -> None:
    job = {
        "url": live.url,
        "key": KEY,
        "model": INSTRUCT,
        "prompt": QUESTION,
        "question": "What is the weather in Paris?",
    }
    before = live.counted(endpoint="/v1/responses"), live.counted(endpoint="/v1/messages")
    found = json.loads(run("node", str(node_script("use_ai_sdk.mjs")), stdin=json.dumps(job)))
    after = live.counted(endpoint="/v1/responses"), live.counted(endpoint="/v1/messages")
    # Three requests by each provider, and one with a tool by OpenAI's.
    assert (after[0] - before[0], after[1] - before[1]) == (4, 3)
    for provider in ("openai", "anthropic"):
        told = found[provider]
        assert told["whole"] == told["streamed"] == ANSWER
        assert told["finish"] == ["stop", "stop"]
        assert told["tokens"] == [11, 8]
        assert told["error"][:2] == ["AI_APICallError", 404]
        assert "no-such-model" in told["error"][2]
    assert found["calls"] == [["get_weather", {"city": "Paris"}]]


def test_vllm_bench_measures_it(live: Server, run: Run, tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("scripts") / "vllm_bench.py")
    run(
        *(sys.executable, script, "--backend", "openai", "--base-url", live.url),
        *("--model", BASE, "--tokenizer", str(WEIGHTS / BASE), "--dataset-name", "random"),
        *("--random-input-len", "20", "--random-output-len", "10", "--num-prompts", "20"),
        *("--save-result", "--result-filename", "bench.json"),
        OPENAI_API_KEY=KEY,
    )
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (found["completed"], found["failed"]) == (20, 0)
    assert found["total_output_tokens"] == 200
    assert found["mean_itl_ms"] > 0


@pytest.mark.long
def test_lm_eval_scores_it(live: Server, run: Run, tmp_path: Path) -> None:
    """By the log probabilities of prompts, which it asks for with `echo`."""
    (tmp_path / "capitals.jsonl").write_text(
        '{"country": "France", "label": 0}\n{"country": "Italy", "label": 1}\n'
    )
    task: dict[str, Any] = {
        "task": "capitals",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(tmp_path / "capitals.jsonl")},
        "test_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "The capital of {{country}} is",
        "doc_to_choice": ["Paris.", "Rome."],
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "capitals.yaml").write_text(json.dumps(task))
    model = {
        "model": BASE,
        "base_url": f"{live.url}/v1/completions",
        "tokenizer": str(WEIGHTS / BASE),
        "num_concurrent": "4",
    }
    run(
        *(str(sdk_python("lm-eval").parent / "lm_eval"), "run", "--model", "local-completions"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
        *("--tasks", "capitals", "--include_path", "tasks", "--output_path", "out"),
        OPENAI_API_KEY=KEY,
    )
    (file,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(file.read_text())["results"]["capitals"]["acc,none"] == 1


@pytest.mark.long
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_guidellm_measures_it(live: Server, run: Run, tmp_path: Path, path: str) -> None:
    backend = {"kind": "openai_http", "target": live.url, "api_key": KEY, "request_format": path}
    settings: dict[str, dict[str, Any]] = {
        "backend": {**backend, "model": INSTRUCT},
        "profile": {"kind": "synchronous"},
        "constraint": {"kind": "max_requests", "count": 5},
        "tokenizer": {"kind": "huggingface_auto", "model": WEIGHTS / INSTRUCT},
        "data": {"kind": "synthetic_text", "prompt_tokens": 20, "output_tokens": 10},
        "output": {"kind": "json", "path": "report.json"},
    }
    words = [
        word
        for option, given in settings.items()
        for word in (f"--{option}", ",".join(f"{name}={value}" for name, value in given.items()))
    ]
    run(str(sdk_python("guidellm").parent / "guidellm"), "run", *words)
    (found,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    totals = found["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"], totals["incomplete"]) == (5, 0, 0)
    for request in found["requests"]["successful"]:
        assert 0 < request["output_tokens"] <= 10
        assert request["time_to_first_token_ms"] > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_aiperf_measures_it(live: Server, run: Run, tmp_path: Path, kind: str) -> None:
    """Without the network it takes a tokenizer from Hugging Face's cache alone, by its name."""
    cached = tmp_path / ".cache" / "huggingface" / "hub" / f"models--serving--{INSTRUCT}"
    commit = "0" * 40
    for folder in ("refs", "snapshots"):
        (cached / folder).mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).symlink_to(WEIGHTS / INSTRUCT)
    run(
        *(str(sdk_python("aiperf").parent / "aiperf"), "profile", "--url", live.url),
        *("--model", INSTRUCT, "--tokenizer", f"serving/{INSTRUCT}", "--api-key", KEY),
        *("--endpoint-type", kind, "--streaming", "--request-count", "5", "--concurrency", "2"),
        *("--synthetic-input-tokens-mean", "20", "--output-tokens-mean", "10"),
        *("--ui", "simple", "--artifact-dir", "found"),
    )
    found = json.loads((tmp_path / "found" / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == 5
    assert not found["error_summary"]
    assert found["time_to_first_token"]["avg"] > 0
