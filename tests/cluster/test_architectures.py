"""Every architecture of the catalogue, under its real ID, on the whole stack; and models that come
and go disturb no other.

The weights are tiny and random (tests/shapes.py); everything else of an entry is the catalogue's.
Models are added to and removed from the running service, three at a time, while others are used
throughout: no request to those may fail, and none of their engines may restart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import shapes
from tests.cluster.conftest import apply, models_with
from tests.live import BASE, ENDLESS, INSTRUCT, PIRATE, ROOT, Server, parse_events, poll

# What every tiny model needs in its entry to run here.
ON_CPU = {"gpus": 0, "cpus": 0.5, "tensor_parallel": 1, "context": 256, "dtype": "float32"}
RAW = {"prompt_style": "raw", "chat_template": None}
# By round: the catalogue's ID, its tiny checkpoint, and the adapter on it, if any.
ROUNDS: tuple[dict[str, tuple[str, str | None]], ...] = (
    {
        "llama-2-7b": ("llama", None),
        "zephyr-7b-beta": ("mistral", "zephyr-cat-merged"),
        "mixtral-8x7b": ("mixtral", None),
    },
    {
        "phi-3-mini-4k-instruct": ("phi3", "phi-3-cat-merged"),
        "falcon-7b": ("falcon-7b", None),
        "falcon-40b": ("falcon-40b", None),
    },
    {"llm-jp-13b-instruct-full": ("gpt2", None)},
)
Answers = dict[str, list[int]]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    command = [sys.executable, "-m", "tests.shapes", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


def expected(checkpoints: Path, name: str) -> Answers:
    answers: Answers = json.loads((checkpoints / f"{name}.json").read_text())
    return answers


def entries_of(live: Server, checkpoints: Path, number: int) -> list[dict[str, Any]]:
    local = yaml.safe_load(live.models.read_text())["models"][0]
    engine_args = {**local["engine_args"], "max_num_seqs": 16}
    entries = []
    for model, (name, adapter) in ROUNDS[number].items():
        entry = {"id": model, "weights": str(checkpoints / name), **ON_CPU, **RAW}
        entry |= {"env": local["env"], "engine_args": engine_args}
        entry["lora"] = {"max_loaded": 1, "max_rank": 8} if adapter else None
        entries.append(entry)
        if adapter:
            entries.append({"id": adapter, "weights": str(checkpoints / f"{name}-lora")})
    return entries


class Users:
    """Threads that use the models that stay, from before the first change to after the last."""

    def __init__(self, live: Server) -> None:
        self._live = live
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.served = self.streams = 0
        self._threads = [
            threading.Thread(target=self._use, args=(model,), daemon=True)
            for model in (BASE, PIRATE, INSTRUCT)
        ]
        self._threads.append(threading.Thread(target=self._stream, daemon=True))
        self._right = {model: self._ask(model) for model in (BASE, PIRATE, INSTRUCT)}
        for thread in self._threads:
            thread.start()

    def _ask(self, model: str) -> str:
        # Short: engines start on the same two cores.
        parameters = {"temperature": 0, "max_tokens": 8}
        return self._live.text(model, "Once upon a time", model_parameters=parameters)

    def _use(self, model: str) -> None:
        while not self._stop.wait(0.3):
            try:
                text = self._ask(model)
                assert text == self._right[model]
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                self.failures.append(f"{model}: {error!r}")
                return
            self.served += 1

    def _stream(self) -> None:
        """One stream after the other, so that one is running during every change."""
        while not self._stop.wait(0.1):
            answer = self._live.complete(
                BASE,
                "Once upon a time",
                model_parameters={**ENDLESS, "max_tokens": 300},
                stream=True,
            )
            events = parse_events(answer.text)
            if answer.status_code != 200 or not events or events[-1].name == "error":
                self.failures.append(f"stream: {answer.status_code} {answer.text[-300:]}")
                return
            used = events[-1].json["token_usage"]["completion"]
            if used != 300:
                self.failures.append(f"stream: {used} tokens")
            self.streams += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture(scope="module")
def users(_shared: Any) -> Iterator[Users]:
    users = Users(_shared.get())
    yield users
    users.stop()


@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_each_class_answers_as_hugging_face_does(
    live: Server, users: Users, checkpoints: Path, number: int
) -> None:
    engines = {target.replica for target in live.engines() if target.model in (BASE, INSTRUCT)}
    said = apply(live, models_with(live, entries_of(live, checkpoints, number)))
    for model, (name, adapter) in ROUNDS[number].items():
        assert f"added    {model}\n" in said
        _check(live, model, expected(checkpoints, name))
        if adapter:
            merged = expected(checkpoints, f"{name}-lora")
            assert merged != expected(checkpoints, name)
            _check(live, adapter, merged)
            assert live.complete(adapter, "Hi").json()["completion"]["response_metadata"] == {
                "model": adapter
            }
    for model in ROUNDS[number - 1] if number else ():
        assert f"removed  {model}\n" in said
        gone = live.complete(model, "Hi")
        assert gone.status_code == 404
        assert gone.json()["error"]["code"] == "model_not_deployed"
        assert "serving apply" in gone.json()["detail"]
    still = {target.replica for target in live.engines() if target.model in (BASE, INSTRUCT)}
    assert still == engines, "engines that stay must not restart"
    assert users.failures == []


def _check(live: Server, model: str, right: Answers) -> None:
    poll(lambda: live.complete(model, "Hi").status_code == 200, 30, f"{model} answers")
    assert set(right) == set(shapes.PROMPTS)
    for prompt, tokens in right.items():
        body = {"model": model, "prompt": prompt, "temperature": 0}
        body |= {"max_tokens": shapes.MAX_TOKENS, "return_token_ids": True}
        (choice,) = live.post("/v1/completions", **body).json()["choices"]
        assert choice["token_ids"] == tokens, f"{model}: {prompt!r}"
        parameters = {"temperature": 0, "max_tokens": shapes.MAX_TOKENS}
        text = live.text(model, prompt, model_parameters=parameters)
        assert text == choice["text"]


def test_a_model_that_does_not_start_harms_nobody_and_can_be_put_right(
    live: Server, users: Users, checkpoints: Path
) -> None:
    entry = entries_of(live, checkpoints, 2)[0]
    broken = models_with(live, [{**entry, "engine_args": {"no_such_argument": 1}}])
    said = apply(live, broken, status=1)
    assert "model-llm-jp-13b-instruct-full failed to start" in said
    with ThreadPoolExecutor(1) as pool:
        # It waits, as nobody knows whether it will be put right. That a wait ends in a 503 is
        # tested without engines (tests/gateway/test_lost.py): here it would take the whole hold.
        waiting = pool.submit(live.complete, "llm-jp-13b-instruct-full", "Hi", stream=True)
        # The same file again is not "nothing to do".
        assert "deploy_failed model-llm-jp-13b-instruct-full" in apply(live, broken, "--dry-run")
        assert not waiting.done()
        apply(live, models_with(live, [entry]))
        answer = waiting.result()
    last = parse_events(answer.text)[-1]
    assert last.json["completion"]["finish_reason"], answer.text
    _check(live, "llm-jp-13b-instruct-full", expected(checkpoints, "gpt2"))
    assert users.failures == []


def test_at_the_end_everything_is_as_it_was(live: Server, users: Users) -> None:
    apply(live, live.models)
    listed = [model["id"] for model in live.get(f"{live.url}/v1/models")["data"]]
    assert not set(listed) & {model for names in ROUNDS for model in names}
    assert apply(live, live.models, "--dry-run") == "nothing to do\n"
    live.wait_whole()
    users.stop()
    assert users.failures == []
    assert users.served > 100
    assert users.streams > 5
