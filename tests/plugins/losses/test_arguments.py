"""The arguments that open_clip gives its losses: taken as it gives them, or refused in one line."""

from __future__ import annotations

import inspect
from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import DistillClipLoss as PeerDistillClipLoss
from open_clip.loss import SigLipLoss as PeerSigLipLoss

import zoo
from support.loss_references import arguments, drawn
from zoo_core.errors import ConfigError, InputError

CLASSES = {
    "contrastive": (zoo.ClipLoss, open_clip.ClipLoss),
    "sigmoid": (zoo.SigLipLoss, PeerSigLipLoss),
    "coca": (zoo.CoCaLoss, open_clip.CoCaLoss),
    "distillation": (zoo.DistillClipLoss, PeerDistillClipLoss),
}
ALONE = {"local_loss": False, "gather_with_grad": False, "cache_labels": True, "rank": 0, "world_size": 1}
"""What its training gives a process that is alone."""


def given_to(name: str) -> dict[str, Any]:
    """Return what the peer's training gives a loss of one process."""
    weights = {"caption_loss_weight": 1.5, "clip_loss_weight": 0.5, "pad_id": 3} if name == "coca" else {}
    if name == "sigmoid":
        return {"cache_labels": True, "rank": 0, "world_size": 1, "dist_impl": "bidir"}
    return weights | ALONE | {"use_horovod": False}


@pytest.mark.parametrize("name", CLASSES)
def test_each_loss_takes_what_the_peers_training_gives_it(name: str) -> None:
    ours, theirs = (one(**given_to(name)) for one in CLASSES[name])
    batch = arguments(name, drawn(5), ids=False)
    shared = {key: batch[key] for key in inspect.signature(theirs.forward).parameters if key in batch}
    for found, expected in zip(*(as_tuple(one(**shared)) for one in (ours, theirs)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert {key: getattr(ours, key) for key in ALONE if hasattr(theirs, key)} == {
        key: getattr(theirs, key) for key in ALONE if hasattr(theirs, key)
    }


def test_weights_and_flags_that_are_not_given_are_those_of_the_papers_and_of_the_peer() -> None:
    """CoCa weighs captions twice as much (Yu et al. 2022); of the others each part counts once."""
    weights = {"caption_loss_weight": 2.0, "clip_loss_weight": 1.0, "pad_id": 3}
    for name, (loss_class, peer_class) in CLASSES.items():
        loss, peer = (loss_class(pad_id=3), peer_class(**weights)) if name == "coca" else (loss_class(), peer_class())
        batch = arguments(name, drawn(5), ids=False)
        shared = {key: batch[key] for key in inspect.signature(peer.forward).parameters if key in batch}
        for value, expected in zip(*(as_tuple(module(**shared)) for module in (loss, peer)), strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
        for flag in ("cache_labels", "use_horovod"):
            assert getattr(loss, flag, None) == getattr(peer, flag, None)


def as_tuple(found: Any) -> tuple[Any, ...]:
    """Return one loss, or several."""
    return found if isinstance(found, tuple) else (found,)


def test_arguments_stand_in_the_order_of_the_peers() -> None:
    for name in ("contrastive", "sigmoid", "coca"):
        ours, theirs = (list(inspect.signature(one).parameters) for one in CLASSES[name])
        assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("contrastive", {"use_horovod": True}, "use_horovod: processes share a batch through torch.distributed alone"),
        ("contrastive", {"world_size": 2}, "give gather_with_grad=True"),
        ("contrastive", {"rank": 0, "world_size": 2, "local_loss": True}, "give gather_with_grad=True"),
        ("contrastive", {"rank": -1}, "rank must be a whole number of at least 0, or None, found -1"),
        ("coca", {"pad_id": 0, "world_size": 0}, "world_size must be a whole number of at least 1, or None, found 0"),
        ("distillation", {"rank": 1.0}, "rank must be a whole number of at least 0, or None, found 1.0"),
        ("sigmoid", {"dist_impl": "ring"}, "dist_impl 'ring' is none; allowed: bidir, gather, reduce, shift"),
    ],
)
def test_what_cannot_be_done_is_refused_when_the_loss_is_made(name: str, options: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        CLASSES[name][0](**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", CLASSES)
def test_a_loss_that_was_told_of_other_processes_says_that_it_is_alone(name: str) -> None:
    more = {"pad_id": 3} if name == "coca" else {}
    flags = {} if name == "sigmoid" else {"gather_with_grad": True}
    loss = CLASSES[name][0](rank=1, world_size=2, **flags, **more)
    with pytest.raises(InputError, match="world_size=2, but 1 process would share the batch; call torch.distributed"):
        loss(**arguments(name, drawn(5), ids=False))


@pytest.mark.parametrize("name", ["contrastive", "coca", "distillation"])
def test_gradients_are_gathered_unless_only_other_arguments_name_the_processes(name: str) -> None:
    more = {"pad_id": 3} if name == "coca" else {}
    loss_class = CLASSES[name][0]
    assert loss_class(**more).gather_with_grad is True
    for key in ("local_loss", "rank", "world_size"):
        assert loss_class(**{key: ALONE[key]}, **more).gather_with_grad is False
        assert loss_class(**{key: ALONE[key]}, gather_with_grad=True, **more).gather_with_grad is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gather_with_grad": False}, "gather_with_grad=False, open_clip's default, leaves out the gradients of other"),
        ({"rank": 0, "gather_with_grad": True}, "rank=0, but this is process 1 of 2; leave it out"),
        (
            {"world_size": 3, "gather_with_grad": True},
            "world_size=3, but 2 processes would share the batch; leave it out, or give group=",
        ),
    ],
)
def test_a_loss_of_two_processes_refuses_what_is_said_of_others(
    options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo_losses.pairs.rank_and_count", lambda group: (1, 2))
    with pytest.raises(InputError) as caught:
        zoo.ClipLoss(**options).check_processes()
    assert message in str(caught.value)
    for right in ({}, {"rank": 1, "world_size": 2, "gather_with_grad": True}):
        assert zoo.ClipLoss(**right).check_processes() == 2


@pytest.mark.parametrize("name", CLASSES)
def test_processes_are_no_data_of_a_config(name: str) -> None:
    for flag in ("local_loss", "gather_with_grad", "rank", "world_size"):
        with pytest.raises(ConfigError, match=f"{flag}: unknown key"):
            zoo.loss(name, **{flag: 1})
