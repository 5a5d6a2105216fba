"""From the URLs of a request to images in memory, within the limits of the models file.

An image's bytes decide its format; media types and file names are only the caller's words. Checks
go from cheap to dear: number, bytes, the header's pixel count, and only then is anything decoded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from serving.catalogue.spec import ImageLimits
from serving.engine.images.fetch import Fetcher
from serving.errors import InvalidField, ServingError

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
# Images of this replica that are decoded at the same time: each takes up to 16 bytes a pixel (its
# own, the white behind it, both together, and RGB).
DECODED_AT_ONCE = 2


class ImageLoader:
    """Loads images. One per engine.

    Args:
        limits: what the operator allows.
        fetcher: gets `https:` URLs; default: a `Fetcher` with the same limits.
    """

    def __init__(self, limits: ImageLimits, fetcher: Fetcher | None = None) -> None:
        self._limits = limits
        self._fetcher = fetcher or Fetcher(limits)
        self._decoders = ThreadPoolExecutor(DECODED_AT_ONCE, thread_name_prefix="decode")

    async def load_all(self, urls: Sequence[str], param: str) -> list[Image.Image]:
        """The images of a request, in order. `param`: the field that errors name.

        Raises:
            InvalidField: too many images, or one that may not be fetched, is too large or is not an
                image.
            InvalidRequest: an image that its host does not deliver.
        """
        most = self._limits.max_per_request
        if len(urls) > most:
            raise InvalidField(f"{len(urls)} images; a request has at most {most}", param=param)
        budget = _Budget(self._limits.max_pixels)
        tasks = [asyncio.create_task(self.load(url, budget)) for url in urls]
        try:
            await asyncio.gather(*tasks)
        except ServingError as error:
            failed = next(n for n, task in enumerate(tasks, start=1) if _failed_with(task, error))
            raise type(error)(f"image {failed}: {error.message}", param=param) from None
        finally:
            for task in tasks:
                task.cancel()
        return [task.result() for task in tasks]

    async def load(self, url: str, budget: _Budget | None = None) -> Image.Image:
        """One image in RGB; of an animation, the first. `budget`: the pixels left to its request.

        Raises:
            InvalidField, InvalidRequest: as `load_all`, without the image's number.
        """
        source = url if url[:5].lower() == "data:" else await self._fetcher.fetch(url)
        budget = budget or _Budget(self._limits.max_pixels)
        # A pool of its own: a cancelled decoding runs to its end and keeps its thread until then.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, self._decode, source, budget)

    def _decode(self, source: str | bytes, budget: _Budget) -> Image.Image:
        content = self._content(source) if isinstance(source, str) else source
        try:
            image = Image.open(BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            raise InvalidField(f"the content is none of {', '.join(FORMATS)}") from None
        except Exception:  # noqa: BLE001 - hostile bytes make a decoder raise anything
            raise InvalidField("the image is damaged") from None
        with image:
            budget.take(image.width, image.height)
            try:
                return _upright_rgb(image)
            except Exception:  # noqa: BLE001 - as above
                raise InvalidField("the image is damaged") from None

    def _content(self, url: str) -> bytes:
        """The bytes of a base64 `data:` URL (RFC 2397)."""
        head, comma, data = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidField("a `data:` URL must have the form data:image/png;base64,...")
        if len(data) // 4 * 3 > self._limits.max_bytes + 2:
            raise InvalidField(f"an image has at most {self._limits.max_bytes} bytes")
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidField("the `data:` URL is not valid base64") from None
        if len(content) > self._limits.max_bytes:
            raise InvalidField(f"an image has at most {self._limits.max_bytes} bytes")
        return content


class _Budget:
    """The pixels that a request's images may have together: a few kilobytes can hold very many."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._left = pixels
        self._lock = threading.Lock()

    def take(self, width: int, height: int) -> None:
        """Called with an image's size before it is decoded."""
        with self._lock:
            self._left -= width * height
            if self._left >= 0:
                return
        raise InvalidField(
            f"with {width} x {height} pixels of this image the request has more than the "
            f"{self._pixels} pixels that are taken"
        )


def _failed_with(task: asyncio.Task[Image.Image], error: BaseException) -> bool:
    return task.done() and not task.cancelled() and task.exception() is error


def _upright_rgb(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it: turned as its EXIF data says, on white where transparent.

    Hugging Face's `load_image` turns images too; vLLM's loader does both. Nothing but the pixels is
    left: vLLM would take an image's name in its caches from EXIF data.
    """
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):
        # 16 bits of gray: `convert` would clip all but the darkest to white.
        turned = turned.convert("I").point(lambda value: value / 256).convert("L")
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        white = Image.new("RGBA", turned.size, "white")
        turned = Image.alpha_composite(white, turned)
    pixels = turned.convert("RGB")
    pixels.info = {}
    return pixels
