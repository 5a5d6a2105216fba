"""What counts as an image, and which limits it meets; fetching is in `test_fetch.py`."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import zlib

import pytest
from PIL import Image

from serving.catalogue.spec import ImageLimits
from serving.engine.images.fetch import Fetcher
from serving.engine.images.loader import ImageLoader
from serving.errors import InvalidField, InvalidRequest
from tests.unit.engine.images.pictures import BLUE, RED, data_url, encoded


async def load(content: bytes | str, **limits: int) -> Image.Image:
    url = content if isinstance(content, str) else data_url(content)
    return await ImageLoader(ImageLimits(**limits)).load(url)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
async def test_formats(kind: str) -> None:
    image = await load(encoded(kind=kind))
    assert (image.mode, image.size) == ("RGB", (8, 6))
    pixel = image.getpixel((3, 3))
    assert isinstance(pixel, tuple)
    assert all(abs(a - b) < 12 for a, b in zip(pixel, RED, strict=True))


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM"])
async def test_other_formats_are_refused_whatever_they_are_called(kind: str) -> None:
    with pytest.raises(InvalidField, match="none of PNG, JPEG, GIF, WEBP"):
        await load(data_url(encoded(kind=kind), "image/png"))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
)
async def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidField, match="none of PNG"):
        await load(content)


async def test_the_media_type_does_not_matter() -> None:
    content = encoded()
    for head in ("data:;base64,", "DATA:text/html;charset=x;BASE64,", "data:image/gif;base64,"):
        assert (await load(head + data_url(content).partition(",")[2])).size == (8, 6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_a_damaged_image_is_refused(kind: str) -> None:
    content = encoded(size=(300, 300), kind=kind)
    with pytest.raises(InvalidField):
        await load(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:image/png,abc", "must have the form"),
        ("data:image/png;base64", "must have the form"),
        ("data:", "must have the form"),
        ("data:image/png;base64,!!!!", "not valid base64"),
        ("data:image/png;base64,AAA", "not valid base64"),
        ("data:image/png;base64,é", "not valid base64"),
        ("http://host/a.png", "only `data:` and `https:`"),
        ("file:///etc/passwd", "only `data:` and `https:`"),
        ("ftp://host/a.png", "only `data:` and `https:`"),
        ("//host/a.png", "only `data:` and `https:`"),
        ("/etc/passwd", "only `data:` and `https:`"),
        ("image:0", "only `data:` and `https:`"),
        ("", "only `data:` and `https:`"),
    ],
)
async def test_urls_of_other_forms_are_refused(url: str, says: str) -> None:
    with pytest.raises(InvalidField, match=says):
        await load(url)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_nothing_but_the_pixels_is_left(kind: str) -> None:
    """vLLM looks for an image's identity in its EXIF data."""
    exif = Image.Exif()
    exif[Image.ExifTags.Base.ImageID] = "0a0b0c0d-0a0b-0c0d-0a0b-0c0d0a0b0c0d"
    exif[Image.ExifTags.Base.Orientation] = 3
    image = await load(encoded(kind=kind, exif=exif, icc_profile=b"profile"))
    assert dict(image.getexif()) == {}
    assert image.info == {}


async def test_the_byte_limit_is_exact() -> None:
    content = encoded()
    assert await load(content, max_bytes=len(content))
    with pytest.raises(InvalidField, match=f"at most {len(content) - 1} bytes"):
        await load(content, max_bytes=len(content) - 1)


async def test_far_too_many_bytes_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(InvalidField, match="at most 1000 bytes"):
        await load("data:;base64," + "!" * 5000, max_bytes=1000)


async def test_the_pixel_limit_is_exact() -> None:
    assert await load(encoded(size=(10, 10)), max_pixels=100)
    with pytest.raises(InvalidField, match=r"10 x 10 pixels .* more than the 99"):
        await load(encoded(size=(10, 10)), max_pixels=99)


def bomb(side: int) -> bytes:
    """A PNG whose header announces `side` squared pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_000, 60_000])
async def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidField):
        await load(bomb(side))
    assert time.monotonic() - started < 0.5


async def test_of_an_animation_the_first_image() -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert (await load(out.getvalue())).getpixel((0, 0)) == RED


async def test_transparency_is_shown_on_white() -> None:
    image = await load(encoded(color=(255, 0, 0, 0), mode="RGBA"))
    assert image.getpixel((0, 0)) == (255, 255, 255)
    image = await load(encoded(color=(0, 255), mode="LA"))
    assert image.getpixel((0, 0)) == (0, 0, 0)


async def test_sixteen_bits_of_gray_keep_their_shade() -> None:
    image = await load(encoded(color=32_768, mode="I;16"))
    assert image.getpixel((0, 0)) == (128, 128, 128)


async def test_the_image_is_turned_as_a_camera_says() -> None:
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    assert (await load(encoded(kind="JPEG", exif=exif))).size == (6, 8)


# several


async def test_several_keep_their_order() -> None:
    urls = [data_url(encoded(color)) for color in (RED, BLUE, RED)]
    images = await ImageLoader(ImageLimits()).load_all(urls, "images")
    assert [image.getpixel((0, 0)) for image in images] == [RED, BLUE, RED]
    assert await ImageLoader(ImageLimits()).load_all([], "images") == []


async def test_too_many_are_refused() -> None:
    with pytest.raises(InvalidField, match="3 images; a request has at most 2") as caught:
        await ImageLoader(ImageLimits(max_per_request=2)).load_all(["x"] * 3, "messages")
    assert caught.value.param == "messages"


async def test_an_error_names_the_image_and_the_field() -> None:
    urls = [data_url(encoded()), data_url(b"no image")]
    with pytest.raises(InvalidField, match=r"^image 2: the content is none of") as caught:
        await ImageLoader(ImageLimits()).load_all(urls, "images")
    assert caught.value.param == "images"


class SlowFetcher(Fetcher):
    """Never delivers; a URL with `bad` in it fails at once."""

    def __init__(self) -> None:
        super().__init__(ImageLimits())
        self.running = 0

    async def fetch(self, url: str) -> bytes:
        self.running += 1
        try:
            await asyncio.sleep(0.01 if "bad" in url else 60)
        finally:
            self.running -= 1
        raise InvalidRequest("gone")


async def test_the_first_failure_ends_the_other_fetches() -> None:
    fetcher = SlowFetcher()
    with pytest.raises(InvalidRequest, match=r"^image 2: gone"):
        await ImageLoader(ImageLimits(), fetcher).load_all(["https://a", "https://bad"], "images")
    await asyncio.sleep(0)
    assert fetcher.running == 0


async def test_a_caller_who_leaves_ends_the_fetches() -> None:
    fetcher = SlowFetcher()
    loader = ImageLoader(ImageLimits(), fetcher)
    task = asyncio.create_task(loader.load_all(["https://a", "https://b"], "images"))
    await asyncio.sleep(0.01)
    assert fetcher.running == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert fetcher.running == 0


async def test_the_images_of_a_request_share_the_pixel_limit() -> None:
    urls = [encoded(size=(10, 10))] * 3
    loader = ImageLoader(ImageLimits(max_pixels=300))
    assert len(await loader.load_all([data_url(at) for at in urls], "images")) == 3
    with pytest.raises(InvalidField, match="more than the 299 pixels"):
        await ImageLoader(ImageLimits(max_pixels=299)).load_all(
            [data_url(at) for at in urls], "images"
        )
