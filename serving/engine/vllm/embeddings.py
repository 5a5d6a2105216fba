"""Token counts of vLLM's embeddings endpoint, which writes them into its response only."""

from __future__ import annotations

from typing import Any

from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata
from vllm.entrypoints.pooling.utils import get_pooling_usage


def note_usage(serving: Any) -> None:
    """Let vLLM's handler of `/v1/embeddings` note each request's usage where the handlers of
    completions and chats note theirs: in the request's state.

    Args:
        serving: the handler; None for a model that makes no embeddings.
    """
    if serving is None:
        return
    kind = type(serving)

    def build_response(self: Any, ctx: Any) -> Any:
        ctx.raw_request.state.request_metadata = RequestResponseMetadata(
            request_id=ctx.request_id, final_usage_info=get_pooling_usage(ctx.final_res_batch)
        )
        return kind._build_response(self, ctx)

    serving.__class__ = type(kind.__name__, (kind,), {"_build_response": build_response})
