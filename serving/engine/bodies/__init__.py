"""The check of an OpenAI body before an engine sees it."""
