"""A tiny random vision model: LLaVA's architecture, a few hundred kilobytes.

Random weights say nothing sensible, but what they say depends on the image: they are scaled up so
that the image decides which token is greedy, and the seed is one with no near-tie in the tests.
The class is one that vLLM runs through its transformers backend without torchvision
(docs/decisions.md).

    python -m tests.vision_shape DIRECTORY     # writes DIRECTORY/tiny-vision
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from local_models.make import (
    BASE,
    WEIGHTS,
)

IMAGE_TOKEN = "<image>"
SIDE = 32
PATCH = 8
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}"
)


def write_vision(directory: Path) -> None:
    """Write the checkpoint: the same files every time."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer: Any = AutoTokenizer.from_pretrained(WEIGHTS / BASE)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(13)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    build: Any = LlavaForConditionalGeneration  # its constructor has no types
    model = build(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.mul_(4.0 if "projector" in name else 5.0)
    model.generation_config.eos_token_id = None
    model.save_pretrained(directory)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(directory)


if __name__ == "__main__":
    write_vision(Path(sys.argv[1]) / "tiny-vision")
