"""vLLM called directly, as the reference for what the server answers. Run in a process of its own.

Reads a job from standard input, writes one JSON line to standard output:

    {"engine": {..LLM arguments}, "chat": bool, "calls": [[[prompt, adapter or null], ..], ..]}

Each list of calls is one batch; the answer has the same shape with
{"text", "token_ids", "prompt_token_ids", "finish_reason"} in place of each call.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any


def main() -> None:
    job: dict[str, Any] = json.loads(sys.stdin.read())
    # vLLM writes to standard output too.
    answer_fd = os.dup(1)
    os.dup2(2, 1)

    from vllm import LLM, SamplingParams
    from vllm.entrypoints.launchers.cli_args import FrontendArgs
    from vllm.inputs import TokensPrompt
    from vllm.lora.request import LoRARequest

    # What only a server has is no argument of an engine.
    served = {field.name for field in dataclasses.fields(FrontendArgs)}
    llm = LLM(**{name: value for name, value in job["engine"].items() if name not in served})
    tokenizer = llm.get_tokenizer()
    adapters = sorted({adapter for batch in job["calls"] for _, adapter in batch if adapter})
    requests = {
        path: LoRARequest(lora_name=path, lora_int_id=number, lora_path=path)
        for number, path in enumerate(adapters, start=1)
    }
    for request in requests.values():
        assert llm.llm_engine.add_lora(request)

    def tokens(prompt: str) -> list[int]:
        if not job["chat"]:
            return list(tokenizer.encode(prompt))
        message = [{"role": "user", "content": prompt}]
        return list(
            tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
        )

    answers = []
    for batch in job["calls"]:
        outputs = llm.generate(
            [TokensPrompt(prompt_token_ids=tokens(prompt)) for prompt, _ in batch],
            SamplingParams(temperature=0, max_tokens=300),
            lora_request=[requests.get(adapter) for _, adapter in batch],
            use_tqdm=False,
        )
        answers.append(
            [
                {
                    "text": output.outputs[0].text,
                    "token_ids": list(output.outputs[0].token_ids),
                    "prompt_token_ids": list(output.prompt_token_ids),
                    "finish_reason": output.outputs[0].finish_reason,
                }
                for output in outputs
            ]
        )
    os.write(answer_fd, json.dumps(answers).encode() + b"\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
