"""What acme-depth promises, and zoo's own test kit run over it."""

import numpy
import pytest
import torch

import zoo
from zoo_core.testing import check_component, check_plugin


def test_every_part_keeps_its_promises() -> None:
    preprocessor, tower = check_plugin("acme-depth")
    check_component(tower, {"map_size": [8, 12], "width": 4})
    check_component(preprocessor, {"max_depth": 5.0})


def test_maps_and_texts_share_an_embedding_space() -> None:
    model = zoo.build("depth-tiny")
    maps = [numpy.full((10, 20), 2.0), numpy.full((30, 30), 9.0)]
    features = model.encode("depth", maps, normalize=True)
    assert torch.equal(features, model.encode("depth", model.depth_preprocess.batch(maps), normalize=True))
    assert (features @ model.encode_text(["a wall", "a street"], normalize=True).T).shape == (2, 2)


@pytest.mark.parametrize("maps", [torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 8), numpy.ones((4, 4), int), "no.npy"])
def test_what_is_no_map_is_refused(maps: object) -> None:
    with pytest.raises(zoo.ZooError, match="depth map"):
        zoo.build("depth-tiny").encode("depth", maps)
