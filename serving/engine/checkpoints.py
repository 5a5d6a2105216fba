"""Where a checkpoint's files are: in a directory, or in a repository's snapshot on this machine."""

from __future__ import annotations

import os

from huggingface_hub import snapshot_download

from serving.errors import BadAdapter

# `adapter_model.bin` is a pickle and never fetched.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def local_checkpoint(weights: str, revision: str | None) -> str:
    """The directory of `weights`. Fetches nothing: a repository that is not on this machine is
    returned as its ID."""
    if os.path.isdir(weights):
        return weights
    try:
        return str(snapshot_download(weights, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # huggingface_hub's errors derive from these
        return weights


def fetch_adapter(path: str, revision: str | None) -> str:
    """The directory of an adapter's files; a repository is fetched once and then kept. Blocks.

    Raises:
        BadAdapter: `path` is neither a directory nor a repository that can be fetched.
    """
    if os.path.isdir(path):
        return path
    if os.path.isabs(path):
        raise BadAdapter(f"there is no directory {path!r} on this machine")
    try:
        return str(snapshot_download(path, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    except (OSError, ValueError) as error:
        raise BadAdapter(
            f"{path!r} is no directory, and no repository that can be fetched "
            f"({type(error).__name__}); for a private one set HF_TOKEN in the model's `env`"
        ) from None
