"""What `patches/media.py` assumes of vLLM's caches of media, and what `MediaNames` makes of it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest
from PIL import Image
from vllm.multimodal.cache import BaseMultiModalProcessorCache
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.parse import MultiModalDataItems, MultiModalDataParser
from vllm.multimodal.processing import BaseMultiModalProcessor, ProcessorInputs
from vllm.renderers import BaseRenderer
from vllm.v1.engine.input_processor import InputProcessor

from serving.catalogue.spec import ImageLimits
from serving.engine.images.loader import ImageLoader
from serving.engine.vllm.media_names import MediaNames
from serving.engine.vllm.salts import Salts
from serving.errors import InvalidRequest
from tests.unit.engine.images.pictures import BLUE, RED, data_url, encoded


def media(*colors: Any) -> MultiModalDataItems:
    images = [Image.new("RGB", (8, 8), color) for color in colors]
    return MultiModalDataParser().parse_mm_data({"image": images})


def names(*colors: Any) -> list[str]:
    """As vLLM's processor makes them."""
    made = ProcessorInputs([], media(*colors)).get_mm_hashes("model", "blake3")
    return list(made["image"])


class Renderer:
    """vLLM's renderer as far as it is patched: it prepares media in a thread of its own, which
    `may_go` holds up, and notes their names."""

    def __init__(self) -> None:
        self._mm_executor = ThreadPoolExecutor(1)
        self.mm_processor_cache = self
        self.noted: list[str] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self._process_multimodal_async: Callable[..., Any]

    def _process_multimodal(self, *colors: Any) -> list[str]:
        self.may_go.wait()
        self.noted += (made := names(*colors))
        return made

    def invalidate(self, name: str) -> None:
        self.noted.remove(name)

    async def prepare(self, *colors: Any) -> list[str]:
        made: list[str] = await self._process_multimodal_async(*colors)
        return made

    async def idle(self) -> None:
        await asyncio.wrap_future(self._mm_executor.submit(lambda: None))


@pytest.fixture
def renderer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Renderer]:
    monkeypatch.setattr(ProcessorInputs, "get_mm_hashes", ProcessorInputs.get_mm_hashes)
    renderer = Renderer()
    yield renderer
    renderer._mm_executor.shutdown()


def test_media_are_prepared_in_a_thread_of_the_renderers() -> None:
    text = inspect.getsource(BaseRenderer)
    changed = "the renderer prepares media elsewhere: see name_media"
    assert "self._mm_executor = ThreadPoolExecutor(max_workers=1)" in text, changed
    assert text.count("await self._process_multimodal_async(") == 1, changed
    assert text.count("mm_processor.apply(") == 1, changed


def test_one_name_counts_in_all_caches() -> None:
    changed = "vLLM names media otherwise: see name_media"
    processor = inspect.getsource(BaseMultiModalProcessor)
    assert processor.count("self._get_mm_hashes(inputs)") == 2, changed
    assert "inputs.get_mm_hashes(" in inspect.getsource(BaseMultiModalProcessor._get_mm_hashes)
    # The encoder's cache and the prefix cache go by the identifier, the core's by the hash.
    made = inspect.getsource(InputProcessor)
    assert 'decoder_input["mm_hashes"]' in made, changed
    assert "mm_hash=base_mm_hash" in made, changed
    assert "_get_mm_identifier(\n                            base_mm_hash," in made, changed


def test_the_renderers_notes_can_be_withdrawn() -> None:
    changed = "the renderer's notes of media are kept otherwise: see forget_media"
    assert isinstance(BaseRenderer.mm_processor_cache, property), changed
    taken = list(inspect.signature(BaseMultiModalProcessorCache.invalidate).parameters)
    assert taken == ["self", "mm_hash"], changed


async def test_the_name_of_a_loaded_image_is_made_of_its_pixels() -> None:
    """Whatever else is in the file, or another caller could be given a wrong image."""
    exif = Image.Exif()
    exif[Image.ExifTags.Base.ImageID] = "0a0b0c0d-0a0b-0c0d-0a0b-0c0d0a0b0c0d"
    loader = ImageLoader(ImageLimits())

    async def name(content: bytes) -> str:
        image = await loader.load(data_url(content))
        return str(MultiModalHasher.hash_kwargs("blake3", image=image))

    plain = await name(encoded(RED))
    assert await name(encoded(RED, exif=exif)) == plain
    assert await name(encoded(RED, exif=exif, kind="WEBP", lossless=True)) == plain
    assert await name(encoded(BLUE, exif=exif)) != plain


async def test_each_space_has_its_own_names(renderer: Renderer) -> None:
    salts = Salts()
    MediaNames(renderer, salts.name)  # type: ignore[arg-type]

    async def call(space: str) -> list[str]:
        salts.enter(space)
        # vLLM renders in tasks of its own, too.
        return await asyncio.create_task(renderer.prepare(RED, BLUE))

    spaces = ["a", "b", "", "a", "b", ""]
    found = await asyncio.gather(*map(call, spaces))
    assert found[:3] == found[3:]
    assert len({name for named in found for name in named}) == 6
    assert found[2] == names(RED, BLUE), "without spaces, vLLM's own"


def test_recordings_have_names_of_their_space(renderer: Renderer) -> None:
    """For models with caches; an encoder with a decoder has none (`test_audio.py`)."""
    salts = Salts()
    plain = heard(0.5)
    MediaNames(renderer, salts.name)  # type: ignore[arg-type]
    salts.enter("a")
    first, again, other = heard(0.5), heard(0.5), heard(0.25)
    salts.enter("b")
    assert first == again
    assert len({plain, first, other, heard(0.5)}) == 4


def heard(level: float) -> str:
    """The name of a recording, as vLLM's processor makes it."""
    sound = numpy.full(160, level, dtype="float32")
    items = MultiModalDataParser(target_sr=16_000).parse_mm_data({"audio": [(sound, 16_000)]})
    (name,) = ProcessorInputs([], items).get_mm_hashes("model", "blake3")["audio"]
    return str(name)


async def test_media_of_a_failed_call_are_sent_again(renderer: Renderer) -> None:
    salts = Salts()
    media = MediaNames(renderer, salts.name)  # type: ignore[arg-type]

    async def call(color: Any, *, fails: bool) -> None:
        with media.sent_again_after_failure():
            await renderer.prepare(color)
            if fails:
                raise InvalidRequest("too long")

    await call(RED, fails=False)
    with pytest.raises(InvalidRequest):
        await call(BLUE, fails=True)
    await renderer.idle()
    assert renderer.noted == names(RED), "another call's are still known"


async def test_a_call_that_is_cancelled_while_its_media_are_prepared(renderer: Renderer) -> None:
    """The thread goes on, and notes the media after the call's end."""
    salts = Salts()
    media = MediaNames(renderer, salts.name)  # type: ignore[arg-type]

    async def call() -> None:
        with media.sent_again_after_failure():
            await renderer.prepare(RED)

    renderer.may_go.clear()
    task = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    renderer.may_go.set()
    await renderer.idle()
    assert renderer.noted == []
