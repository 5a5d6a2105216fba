"""Tiny random checkpoints of the architectures that the transformers engine serves.

    python -m tests.seq_shapes DIRECTORY     # writes DIRECTORY/tiny-t5 and DIRECTORY/tiny-mpt

Untrained, from a fixed seed: they say nonsense, and the same nonsense each time. Their weights are
spread widely, so that greedy text varies with the prompt and no step is a near-tie in float32.
Under a second each, once torch is imported.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

TOKENIZER = Path(__file__).parents[1] / "local_models/weights/tiny-llama"
CONTEXT = 256
_WORDS = (
    "the a of to and in is it you that he was for on are with as his they at be this from have or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water been "
    "call who oil its now find long down day did get come made may part"
)
_ENDINGS = ("s", "ed", "ing", "er", "ly", "est", "ness", ",", ".", "!", "?")


def write_mpt(directory: Path) -> Path:
    """A decoder-only model with ALiBi (MptForCausalLM) and tiny-llama's byte-level tokenizer."""
    import torch
    from transformers import MptConfig, MptForCausalLM

    torch.manual_seed(11)
    config = MptConfig(
        d_model=64,
        n_heads=4,
        n_layers=3,
        expansion_ratio=4,
        max_seq_len=CONTEXT,
        vocab_size=1536,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    MptForCausalLM(config).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, directory / name)
    return directory


def write_t5(directory: Path) -> Path:
    """An encoder-decoder (T5ForConditionalGeneration, gated as flan-t5 is) and a tokenizer of
    SentencePiece's kind: pieces that begin a word carry its space."""
    import torch
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    tokenizer = _sentencepiece()
    torch.manual_seed(12)
    config = T5Config(
        vocab_size=len(tokenizer.get_vocab()),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        feed_forward_proj="gated-gelu",
        initializer_factor=2.0,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight *= 0.1  # to a trained model's range, where penalties matter
    model.save_pretrained(directory)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    ).save_pretrained(directory)
    return directory


def _sentencepiece():  # type: ignore[no-untyped-def]  # tokenizers is imported in here
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -4.0) for word in _WORDS.split()]
    pieces += [(ending, -5.0) for ending in _ENDINGS]
    characters = sorted(set("▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'-:;é"))
    pieces += [(character, -9.0) for character in characters if character not in _ENDINGS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True) for name in ("<pad>", "</s>", "<unk>")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    out: Path = parser.parse_args().directory
    write_t5(out / "tiny-t5")
    write_mpt(out / "tiny-mpt")


if __name__ == "__main__":
    main()
