"""What is borrowed of vLLM's caches of media: the renderer's, the engine core's copy of it, and the
encoder's. All know an image, or another medium, by one name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any

from vllm.multimodal.processing import ProcessorInputs
from vllm.renderers import BaseRenderer


def name_media(renderer: BaseRenderer, name: Callable[[str], str]) -> None:
    """Replace the name of each medium, a hash of its content, by what `name` returns for it.

    vLLM makes the hash in a thread of the renderer's, which does not get the context of the caller
    from it; here it does.
    """
    make = ProcessorInputs.get_mm_hashes

    def make_names(self: Any, *args: Any, **kwargs: Any) -> dict[str, list[str]]:
        made = make(self, *args, **kwargs)
        return {kind: [name(one) for one in hashes] for kind, hashes in made.items()}

    ProcessorInputs.get_mm_hashes = make_names

    async def process_in_context(*args: Any, **kwargs: Any) -> Any:
        run = partial(copy_context().run, renderer._process_multimodal, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(renderer._mm_executor, run)

    renderer._process_multimodal_async = process_in_context


def forget_media(renderer: BaseRenderer, names: Iterable[str]) -> None:
    """Send these media to the engine core again next time.

    The renderer notes which media it has prepared and sends each to the core once, without knowing
    what became of the request. If one never reached the core, the next request with it would fail.

    `names` are read by the thread that prepares media, after what it was given before: preparing
    does not end when its request is cancelled.
    """
    cache = renderer.mm_processor_cache
    if cache is not None:
        renderer._mm_executor.submit(lambda: [cache.invalidate(name) for name in names])
