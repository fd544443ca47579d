import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.images import picture
from zoo_core.errors import InputError
from zoo_core.images import Preprocessor
from zoo_core.models.image_inputs import ImageModality
from zoo_core.models.modality import Modality
from zoo_core.models.text_inputs import TextModality
from zoo_core.plugin import IMAGE, TEXT, ModalitySpec

SPEC = ModalitySpec("depth", "acme:Depth", "acme:Tower", "acme:Maps", files=(".npy",))
IMAGES, TEXTS = ImageModality(IMAGE), TextModality(TEXT)


class Rolling(Preprocessor):
    """Knows no generator: draws from all the global ones."""

    image_size = (4, 4)

    def __call__(self, image):
        assert isinstance(image, Image.Image)
        return torch.rand(3, 4, 4) + random.random() + np.random.rand() + image.width


class Handed(Rolling):
    def __call__(self, image, *, generator=None):
        return torch.rand(3, 4, 4, generator=generator)


class Depth(Modality):
    def check(self, batch, tower): ...

    def example(self, tower, count, processor=None): ...

    def probe_inputs(self): ...


def png(width=6, height=5):
    buffer = io.BytesIO()
    picture(width, height).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [Rolling, Handed])
def test_what_a_processor_draws_depends_on_the_generator_alone(kind):
    drawn = []
    for start in (1, 2):
        torch.manual_seed(start), random.seed(start), np.random.seed(start)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        generator = torch.Generator().manual_seed(7)
        drawn += [[IMAGES.prepare_one(kind(), png(), generator=generator) for _ in range(2)]]
        assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
        assert np.random.get_state()[1].tolist() == states[2]
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1])  # the generator goes on
    other = IMAGES.prepare_one(kind(), png(), generator=torch.Generator().manual_seed(8))
    assert not torch.equal(drawn[0][0], other)


def test_the_global_generators_are_put_back_after_an_error():
    class Failing(Rolling):
        def __call__(self, image):
            random.random()
            raise InputError("no")

    state = random.getstate()
    with pytest.raises(InputError):
        IMAGES.prepare_one(Failing(), png(), generator=torch.Generator())
    assert random.getstate() == state


def test_without_a_generator_the_global_one_draws():
    torch.manual_seed(3)
    expected = torch.rand(3, 4, 4)
    torch.manual_seed(3)
    assert torch.equal(IMAGES.prepare_one(Handed(), png()), expected)


def test_a_processor_of_another_modality_gets_bytes_as_a_file():
    def load(path):
        assert Path(path).suffix == ".npy"
        return torch.from_numpy(np.load(path))

    buffer = io.BytesIO()
    np.save(buffer, np.arange(4.0))
    prepared = [Depth(SPEC).prepare_one(load, buffer.getvalue()) for _ in range(2)]
    assert Depth(SPEC).collate(load, prepared).tolist() == [[0, 1, 2, 3]] * 2


def test_captions_are_tokenized_together():
    def tokenizer(texts, overflow):
        return torch.tensor([[len(text)] for text in texts])

    prepared = [TEXTS.prepare_one(tokenizer, raw) for raw in ("a", b"four", b"\xef\xbb\xbfbom")]
    assert TEXTS.collate(tokenizer, prepared).tolist() == [[1], [4], [3]]


LIMITS = {"min_size": 5, "max_aspect": 2.0, "min_text": 2}


@pytest.mark.parametrize(
    ("modality", "raw", "message"),
    [
        (TEXTS, " a ", "the caption has 1 characters, fewer than 2"),
        (TEXTS, "", "the caption has 0 characters, fewer than 2"),
        (TEXTS, None, "expected a caption, found None"),
        (TEXTS, b"\xff", "the caption is not UTF-8 text (byte 0)"),
        (IMAGES, png(6, 4), "the image has 6 x 4 pixels, less than 5 on a side"),
        (IMAGES, png(11, 5), "the image has 11 x 5 pixels, more elongated than 2:1"),
        (IMAGES, np.zeros((5, 11, 3), np.uint8), "the image has 11 x 5 pixels, more elongated than 2:1"),
        (IMAGES, b"no image", "cannot be read as an image: UnidentifiedImageError"),
    ],
)
def test_what_is_beyond_a_limit_is_refused(modality, raw, message):
    with pytest.raises(InputError) as error:
        modality.check_raw(raw, LIMITS)
    assert str(error.value).startswith(message)


def test_what_is_within_the_limits_passes(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png(10, 5))
    for raw in (path, str(path), path.read_bytes(), picture(10, 5), np.zeros((5, 10, 3), np.uint8)):
        IMAGES.check_raw(raw, LIMITS)
    TEXTS.check_raw("ab", LIMITS)
    IMAGES.check_raw(b"no image, and nobody looks", {"min_size": 1, "max_aspect": None})
    Depth(SPEC).check_raw(object(), LIMITS)
