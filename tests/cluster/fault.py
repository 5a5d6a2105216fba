"""A fault in vLLM's worker: the model raises in a step that runs a marked request.

It is a plugin of vLLM's, which vLLM loads in every process it starts; `install` writes its entry
point into a folder that the engine server then has on its path. Without `VARIABLE` in the
environment it does nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# Where the model raises: in the first step of a marked request in `execute_model`, or later in that
# step, in `sample_tokens`; or in a later step of a marked request: one in which another request is
# new (`beside_new`), or the one that makes its sixth token (`sixth_token`).
VARIABLE = "SERVING_TEST_FAULT"
# A stop sequence that makes a request a marked one.
MARK = "\N{SKULL}"


def install(folder: Path, place: str) -> dict[str, str]:
    """Make the plugin known to Python in `folder`; returns the environment that loads it."""
    package = folder / "fault.egg-info"
    package.mkdir()
    (package / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: fault\nVersion: 1\n")
    entry = "[vllm.general_plugins]\nfault = tests.cluster.fault:put\n"
    (package / "entry_points.txt").write_text(entry)
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    return {"PYTHONPATH": path, VARIABLE: place}


def put() -> None:
    """The plugin."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    place = os.environ.get(VARIABLE)
    execute, sample = GPUModelRunner.execute_model, GPUModelRunner.sample_tokens
    marked: list[str] = []
    seen: set[str] = set()

    def execute_or_raise(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        marked[:] = [
            new.req_id
            for new in scheduler_output.scheduled_new_reqs
            if new.sampling_params is not None and MARK in (new.sampling_params.stop or ())
        ]
        old = scheduler_output.scheduled_cached_reqs
        said = zip(old.req_ids, old.num_output_tokens, strict=True)
        later = {name: tokens for name, tokens in said if name in seen}
        seen.update(marked)
        if (
            (place == "execute_model" and marked)
            or (place == "beside_new" and later and scheduler_output.scheduled_new_reqs)
            or (place == "sixth_token" and 5 in later.values())
        ):
            raise RuntimeError("the fault of the test")
        return execute(self, scheduler_output, *args, **kwargs)

    def sample_or_raise(self: Any, *args: Any, **kwargs: Any) -> Any:
        if marked and place == "sample_tokens":
            raise RuntimeError("the fault of the test")
        return sample(self, *args, **kwargs)

    GPUModelRunner.execute_model = execute_or_raise
    GPUModelRunner.sample_tokens = sample_or_raise
