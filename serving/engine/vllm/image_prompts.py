"""Images on their way into vLLM: prompts with images, and what its OpenAI app may load.

Both use vLLM's own chat renderer, so placeholders, processors and their cache are vLLM's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from PIL.Image import Image
from vllm.exceptions import VLLMClientError, VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY
from vllm.renderers import BaseRenderer, ChatParams, TokenizeParams
from vllm.renderers.hf import HfRenderer

from serving.catalogue.spec import EngineSpec
from serving.engine.images.chat import image_name
from serving.errors import InvalidField, InvalidRequest
from serving.wire.messages import ImageRef

# The name under which vLLM looks for what loads media, unless told otherwise.
_CONNECTOR = "http"


class ImagePrompts:
    """Makes engine inputs from a prompt and its images, for one model."""

    def __init__(self, spec: EngineSpec, renderer: BaseRenderer) -> None:
        self._spec = spec
        self._renderer = renderer
        self._has_template = isinstance(renderer, HfRenderer)

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
            # vLLM's own words quote the prompt; those of the processor are about the image.
            reason = f": {error.__cause__}" if error.__cause__ is not None else ""
            message = f"the model cannot process the images{reason}"
            raise InvalidField(message, param="images") from error

    def forget_failed(self, rendered: dict[str, Any], failure: object, *_: object) -> None:
        """Send these images to the engine core again next time, if their request failed.

        The renderer notes what it has prepared and sends it only once; what became of the request
        it does not know. One that never reached the core would fail the next with the same image.
        """
        cache = self._renderer.mm_processor_cache
        if failure is not None and cache is not None:
            for name in rendered.get("mm_hashes", {}).get("image", ()):
                cache.invalidate(name)

    async def _chat(
        self, prompt: str, images: Sequence[Image], refs: Sequence[ImageRef]
    ) -> dict[str, Any]:
        """One user message, the images before the text."""
        content: list[dict[str, Any]] = [
            {"type": "image_pil", "image_pil": image, "detail": ref.detail}
            for image, ref in zip(images, refs, strict=True)
        ]
        content.append({"type": "text", "text": prompt})
        _, (rendered,) = await self._renderer.render_chat_async(
            [[{"role": "user", "content": content}]],
            ChatParams(
                chat_template=self._spec.chat_template,
                chat_template_kwargs={
                    "add_generation_prompt": True,
                    # Mistral's own tokenizer has no text form of a chat.
                    "tokenize": not self._has_template,
                },
            ),
            # No limit here: the length is checked when the images' tokens are counted in.
            TokenizeParams(max_total_tokens=None, add_special_tokens=False),
        )
        return dict(rendered)

    async def _raw(self, prompt: str, images: Sequence[Image]) -> dict[str, Any]:
        """The prompt as it is; images it has no placeholder for come before it."""
        mark = self._placeholder()
        if mark is not None:
            missing = len(images) - prompt.count(mark)
            if missing < 0:
                raise InvalidField(
                    f"the prompt has more '{mark}' than there are images", param="images"
                )
            prompt = mark * missing + prompt
        (rendered,) = await self._renderer.render_cmpl_async(
            [{"prompt": prompt, "multi_modal_data": {"image": list(images)}}],
            TokenizeParams(max_total_tokens=None, add_special_tokens=True),
        )
        return dict(rendered)

    def _placeholder(self) -> str | None:
        """What stands for an image in a prompt; None where the processor puts images itself."""
        processor = self._renderer.get_mm_processor().info.get_hf_processor()
        return getattr(processor, "boi_token", None) or getattr(processor, "image_token", None)


class LoadedImages:
    """What vLLM's OpenAI app asks for media: has the request's own images and fetches nothing.

    `current` is where the task that asks finds them, by number.
    """

    def __init__(self, current: Callable[[], list[Image | None]]) -> None:
        self._current = current

    def install(self) -> None:
        """Take the place of vLLM's connector, in this process. vLLM makes one per request."""
        MEDIA_CONNECTOR_REGISTRY.name2class[_CONNECTOR] = lambda **_: self

    async def fetch_image_async(self, url: str, **_: Any) -> Image:
        images = self._current()
        for number, image in enumerate(images):
            if image is not None and url == image_name(number):
                images[number] = None  # vLLM has it; pixels are not held for the whole stream
                return image
        raise VLLMValidationError("media is not loaded here", parameter="messages")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise VLLMValidationError("media is not loaded here", parameter="messages")

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith(("fetch_", "load_")):
            return self._refuse
        raise AttributeError(name)
