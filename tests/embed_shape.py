"""Tiny random embedding models: Llama's architecture with the last token's state as the vector, and
BERT's with the first token's.

Their files are laid out as in sentence-transformers' repositories, where vLLM finds how a model
pools. Weights are spread widely, so that different texts have clearly different vectors, and
everything is float32.

    python -m tests.embed_shape DIRECTORY [NAME]..     # writes DIRECTORY/NAME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from local_models.make import BASE, WEIGHTS

CONTEXT = 256
WIDTH = 64

_COMMON = {
    "hidden_size": WIDTH,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
    "pad_token_id": 2,
}
# By name: the classes of configuration and model, more values, and how sentence-transformers
# calls the pooling.
SHAPES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "tiny-embed": ("LlamaConfig", "LlamaModel", {"num_key_value_heads": 1}, "lasttoken"),
    "tiny-bert": ("BertConfig", "BertModel", {"type_vocab_size": 2}, "cls_token"),
}


def write_embed(name: str, directory: Path) -> None:
    """Write one checkpoint: the same files every time."""
    import torch
    import transformers

    config_class, model_class, values, pooling = SHAPES[name]
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(WEIGHTS / BASE)
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer), **_COMMON, **values)
    torch.manual_seed(17)
    model = getattr(transformers, model_class)(config).float().eval()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    modes = {"word_embedding_dimension": WIDTH, f"pooling_mode_{pooling}": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def main() -> None:
    """Command line."""
    directory, *names = sys.argv[1:]
    for name in names or SHAPES:
        write_embed(name, Path(directory) / name)


if __name__ == "__main__":
    main()
