"""Images on their way into vLLM: prompts with images, and what its OpenAI app may load.

Both use vLLM's own chat renderer, so placeholders, processors and their cache are vLLM's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from PIL.Image import Image
from vllm.exceptions import VLLMClientError, VLLMValidationError
from vllm.renderers import BaseRenderer

from serving.catalogue.spec import EngineSpec
from serving.engine.images.chat import image_name
from serving.engine.vllm import patches
from serving.errors import InvalidField, InvalidRequest
from serving.wire.messages import ImageRef


class ImagePrompts:
    """Makes engine inputs from a prompt and its images, for one model."""

    def __init__(self, spec: EngineSpec, renderer: BaseRenderer) -> None:
        self._spec = spec
        self._renderer = renderer

    async def render(
        self, prompt: str, images: Sequence[Image], refs: Sequence[ImageRef]
    ) -> dict[str, Any]:
        """The engine's input: tokens with the images' places expanded, and the pixels.

        Raises:
            InvalidField: the model's processor refuses the images.
            InvalidRequest: vLLM refuses the prompt, for example for too many images.
        """
        try:
            if self._spec.prompt_style == "raw":
                return await self._raw(prompt, images)
            return await self._chat(prompt, images, refs)
        except VLLMClientError as error:
            raise InvalidRequest(str(error), param="images") from None
        except ValueError as error:
            # vLLM's own message quotes the prompt; the processor's is about the image.
            reason = f": {error.__cause__}" if error.__cause__ is not None else ""
            message = f"the model cannot process the images{reason}"
            raise InvalidField(message, param="images") from error

    async def _chat(
        self, prompt: str, images: Sequence[Image], refs: Sequence[ImageRef]
    ) -> dict[str, Any]:
        """One user message, the images before the text."""
        content: list[dict[str, Any]] = [
            {"type": "image_pil", "image_pil": image, "detail": ref.detail}
            for image, ref in zip(images, refs, strict=True)
        ]
        content.append({"type": "text", "text": prompt})
        return await patches.render_chat(self._renderer, content, self._spec.chat_template)

    async def _raw(self, prompt: str, images: Sequence[Image]) -> dict[str, Any]:
        """The prompt as it is; images it has no placeholder for come before it."""
        mark = patches.image_placeholder(self._renderer)
        if mark is not None:
            missing = len(images) - prompt.count(mark)
            if missing < 0:
                raise InvalidField(
                    f"the prompt has more '{mark}' than there are images", param="images"
                )
            prompt = mark * missing + prompt
        return await patches.render_prompt(self._renderer, prompt, images)


class LoadedImages:
    """vLLM's OpenAI app asks this for media. It has the request's own images and fetches nothing.

    `current` returns the images of the current task's request, by number.
    """

    def __init__(self, current: Callable[[], list[Image | None]]) -> None:
        self._current = current

    async def fetch_image_async(self, url: str, **_: Any) -> Image:
        images = self._current()
        for number, image in enumerate(images):
            if image is not None and url == image_name(number):
                images[number] = None  # vLLM has it; do not hold the pixels for the whole stream
                return image
        raise VLLMValidationError("media is not loaded here", parameter="messages")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise VLLMValidationError("media is not loaded here", parameter="messages")

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith(("fetch_", "load_")):
            return self._refuse
        raise AttributeError(name)
