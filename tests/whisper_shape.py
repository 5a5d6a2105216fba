"""A tiny random model for recordings: Whisper's architecture, a megabyte, two seconds at a time.

Random weights say nothing sensible, but what they say depends on the recording: they are spread so
widely that the recording decides which token is greedy. Its tokens are bytes and Whisper's marks.

    python -m tests.whisper_shape DIRECTORY     # writes DIRECTORY/tiny-whisper
"""

from __future__ import annotations

import io
import math
import random
import struct
import sys
import wave
from pathlib import Path
from typing import Any

SECONDS = 2
CONTEXT = 64
RATE = 16_000
START, END, SILENT = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
TASKS = {"transcribe": "<|transcribe|>", "translate": "<|translate|>"}


def write_whisper(directory: Path) -> None:
    """Write the checkpoint: the same files every time."""
    import torch
    import transformers
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [f"<|{language}|>" for language in LANGUAGES]
    marks = [START, *languages, *TASKS.values(), "<|startofprev|>", "<|nospeech|>", SILENT]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(SECONDS * 50 + 1)]
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary[END] = len(vocabulary)
    tokenizer: Any = transformers.WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in marks], special_tokens=True)
    tokenizer.add_tokens([AddedToken(time) for time in times])
    number_of = tokenizer.convert_tokens_to_ids
    end = number_of(END)
    torch.manual_seed(29)
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=128,
        max_source_positions=SECONDS * 50,
        max_target_positions=CONTEXT,
        decoder_start_token_id=number_of(START),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    build: Any = transformers.WhisperForConditionalGeneration  # its constructor has no types
    model = build(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed_positions" not in name:
                attends, decodes = "encoder_attn" in name, ".decoder." in name
                weight.mul_(12.0 if attends else 2.1 if decodes else 6.0)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=number_of(START),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        max_length=CONTEXT,
        is_multilingual=True,
        lang_to_id={mark: number_of(mark) for mark in languages},
        task_to_id={task: number_of(mark) for task, mark in TASKS.items()},
        no_timestamps_token_id=number_of(SILENT),
    )
    model.save_pretrained(directory)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=SECONDS)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(directory)


def samples(seed: int, seconds: float = SECONDS) -> list[float]:
    """A recording: tones that rise and fall, of another pitch for each seed, and noise."""
    rng = random.Random(seed)
    pitch = 120 + 170 * seed
    return [
        0.3 * math.sin(2 * math.pi * pitch * (t := at / RATE) * (1 + 0.2 * math.sin(3 * t)))
        + 0.05 * rng.uniform(-1, 1)
        for at in range(round(seconds * RATE))
    ]


def recording(seed: int, seconds: float = SECONDS, rate: int = RATE) -> bytes:
    """`samples` as a wav file; at another `rate` it is as many samples, slower or faster."""
    levels = [round(level * 32767) for level in samples(seed, seconds)]
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(struct.pack(f"<{len(levels)}h", *levels))
    return file.getvalue()


if __name__ == "__main__":
    write_whisper(Path(sys.argv[1]) / "tiny-whisper")
