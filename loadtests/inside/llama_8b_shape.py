"""A model of Llama-3-8B's shape with random weights, for `make overhead DEVICE=cuda`.

    python -m loadtests.inside.llama_8b_shape DIRECTORY [--layers 32]

Writes a checkpoint without weights and a models file for it; with `load_format: dummy` vLLM makes
random weights. Tokenizer and vocabulary are the tiny Llama's, so the output layer is smaller than
the real model's. Every other layer has its real size.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml

TINY = Path("local_models/weights/tiny-llama")
# huggingface.co/meta-llama/Meta-Llama-3-8B, config.json
SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
}


def write(folder: Path, layers: int, device: str) -> Path:
    """Write checkpoint and models file into `folder`; returns the models file."""
    weights = folder / "llama-8b-shape"
    weights.mkdir(parents=True, exist_ok=True)
    for file in TINY.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, weights)
    config = json.loads((TINY / "config.json").read_text())
    config |= SHAPE | {"num_hidden_layers": layers, "dtype": "bfloat16"}
    (weights / "config.json").write_text(json.dumps(config, indent=1))
    engine_args: dict[str, Any] = {"load_format": "dummy", "max_num_seqs": 256}
    model: dict[str, Any] = {
        "id": "llama-8b-shape",
        "weights": str(weights.resolve()),
        "prompt_style": "raw",
        "context": 2048,
        "dtype": "bfloat16",
        "gpus": 1 if device == "cuda" else 0,
        "cpus": 1,
        "engine_args": engine_args,
    }
    if device == "cpu":
        tiny = yaml.safe_load(Path("deployments/models/local.yaml").read_text())["models"][0]
        model["env"] = tiny["env"]
        engine_args["enforce_eager"] = True
    models = folder / "llama-8b-shape.yaml"
    models.write_text(yaml.safe_dump({"router": {"replicas": 2}, "models": [model]}))
    return models


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    print(write(args.directory, args.layers, args.device))


if __name__ == "__main__":
    main()
