from __future__ import annotations

import base64
import io
from random import Random

from PIL import Image

from loadtests.load.images import noise


def decoded(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()  # checks the checksums too
    return image


def test_an_image_of_noise() -> None:
    image = decoded(noise(37, 21, Random(1)))
    assert (image.size, image.mode) == ((37, 21), "RGB")
    assert len(set(image.tobytes())) > 200


def test_a_large_one() -> None:
    assert decoded(noise(400, 300, Random(1))).size == (400, 300)


def test_no_two_are_alike_but_for_the_same_seed() -> None:
    rng = Random(1)
    first, second = noise(8, 8, rng), noise(8, 8, rng)
    assert first != second
    assert first == noise(8, 8, Random(1))
