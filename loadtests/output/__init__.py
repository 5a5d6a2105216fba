"""What a run shows and leaves behind: the terminal, `summary.json` and `records.jsonl`."""
