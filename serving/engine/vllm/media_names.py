"""The names by which vLLM's caches know the media of each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from vllm.renderers import BaseRenderer

from serving.engine.vllm.patches.media import forget_media, name_media


class MediaNames:
    """Gives the media of each call names that only calls of the same cache space have.

    `salt` turns a name that vLLM has made of a medium's content into one of the current task's
    space.
    """

    def __init__(self, renderer: BaseRenderer, salt: Callable[[str], str]) -> None:
        self._renderer = renderer
        self._salt = salt
        self._named: ContextVar[list[str] | None] = ContextVar("named", default=None)
        name_media(renderer, self._name)

    @contextmanager
    def sent_again_after_failure(self) -> Iterator[None]:
        """If the block fails, the media that were named in it may not have reached the engine core,
        and are sent to it again when they come again."""
        named = list[str]()
        self._named.set(named)
        try:
            yield
        except BaseException:
            forget_media(self._renderer, named)
            raise

    def _name(self, made: str) -> str:
        name = self._salt(made)
        named = self._named.get()
        if named is not None:
            named.append(name)
        return name
