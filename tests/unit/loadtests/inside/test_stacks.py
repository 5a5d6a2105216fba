from __future__ import annotations

from pathlib import Path

import yaml

from loadtests.inside.stacks import Model, bare_command

TEMPLATE = "{{ messages[0].content }}"


def test_bare_vllm_gets_what_our_engine_gets(tmp_path: Path) -> None:
    base = {"id": "m", "weights": "./w", "context": 128, "dtype": "float32", "replicas": 3}
    base |= {"lora": {"max_loaded": 4, "max_rank": 8}, "engine_args": {"enforce_eager": True}}
    tuned = {"id": "m.tuned", "kind": "adapter", "base": "m", "weights": "/w/tuned"}
    file = tmp_path / "models.yaml"
    parsers = {"tool_parser": "hermes", "reasoning_parser": "qwen3"}
    for template in (None, TEMPLATE):
        entry = base | ({"chat_template": template, **parsers} if template else {})
        file.write_text(yaml.safe_dump({"models": [entry, tuned]}))
        command = " ".join(bare_command(Model.load(file), 8000))
        for words in (
            f"--model {tmp_path / 'w'} --served-model-name m",
            "--max-model-len 128",
            "--dtype float32",
            "--enable-lora --max-loras 5 --max-lora-rank 8",
            "--enforce-eager",
            "--lora-modules m.tuned=/w/tuned",
        ):
            assert words in command
        for words in (
            f"--chat-template {TEMPLATE}",
            "--tool-call-parser hermes --enable-auto-tool-choice",
            "--reasoning-parser qwen3",
        ):
            assert (words in command) is (template is not None)
