"""The tiny models that the transformers engine is tried on, and prompts."""

from __future__ import annotations

MODELS = ("t5", "mpt", "llama")
PROMPTS = (
    "the water of his people",
    "they said",
    "go down now and see the long oil day, can you?",
    "I",
    "call the way " * 12,
    "some of the first",
    "way",
    "his oil is long and it is down",
)
LONG = 150
