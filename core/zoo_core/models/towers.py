"""Towers of a model, by modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from inspect import get_annotations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_core.boundary import checked
from zoo_core.boundary.plugin_code import PluginCode, made_by
from zoo_core.errors import InputError, PluginError, describe, one_of
from zoo_core.interfaces import TextTower, Tower, VisionTower
from zoo_core.models.image_inputs import ImageModality
from zoo_core.models.modality import Modality
from zoo_core.models.text_inputs import TextModality
from zoo_core.plugin import IMAGE, TEXT
from zoo_core.registry import Registry

__all__ = ["IMAGE_AND_TEXT", "Towers", "modalities_of"]

IMAGE_AND_TEXT: Mapping[str, Modality] = {"image": ImageModality(IMAGE), "text": TextModality(TEXT)}


class Towers(nn.Module):
    """A module with a tower for each modality.

    Each tower is a child module by the name that published state dicts have for it, such as `visual` and `text`, so
    that libraries may wrap or replace it there; `towers` is a view of these children.

    Attributes:
        modalities: what the model encodes, by name, towers that were left out included.
        visual, text: the towers of images and text; None for a model without one.
    """

    modalities: Mapping[str, Modality] = IMAGE_AND_TEXT
    visual: VisionTower | None
    text: TextTower | None

    def _add_towers(self, towers: Mapping[str, Tower], modalities: Mapping[str, Modality] | None) -> None:
        if modalities is not None and modalities is not IMAGE_AND_TEXT:
            self.modalities = dict(modalities)
            self._check_attributes()
        for name, modality in {**IMAGE_AND_TEXT, **self.modalities}.items():
            setattr(self, modality.spec.module, towers.get(name))

    def _check_attributes(self) -> None:
        """Refuse a modality whose tower or processor would stand where the model has something else."""
        bases = [base for base in type(self).__mro__ if base.__module__.partition(".")[0] in ("zoo_core", "torch")]
        taken = {*vars(self), *(name for base in bases for name in (*vars(base), *get_annotations(base)))}
        taken |= {attribute for modality in (IMAGE, TEXT) for attribute in (modality.module, modality.processor)}
        for modality in self.modalities.values():
            if modality.name in IMAGE_AND_TEXT:
                continue
            for field in ("module", "processor"):
                attribute: str = getattr(modality.spec, field)
                if attribute in taken:
                    what = f"its {field} '{attribute}' is what the model calls something else; choose another"
                    raise PluginError(f"modality '{modality.name}': {what}")
                taken.add(attribute)

    @property
    def towers(self) -> dict[str, Any]:
        """The towers that the model has, by modality."""
        children = {name: getattr(self, modality.spec.module) for name, modality in self.modalities.items()}
        return {name: tower for name, tower in children.items() if tower is not None}

    @property
    def prefixes(self) -> dict[str, str]:
        """How the names of each modality's entries begin in state dicts: `visual.` those of images."""
        return {name: f"{modality.spec.module}." for name, modality in self.modalities.items()}

    @property
    def is_whole(self) -> bool:
        """Whether no tower was left out."""
        return len(self.towers) == len(self.modalities)

    @checked
    def encode(self, modality: str, inputs: Any, normalize: bool = False, **options: Any) -> Tensor:
        """Return the features of inputs of a modality.

        Args:
            modality: one that the model has a tower for, such as `"image"`.
            inputs: a prepared batch, a raw input, or a list of either; see `encode_image` and `encode_text`.
            normalize: scale each feature to unit length.
            options: what the modality takes beyond that, such as `overflow` of text.

        Returns:
            features `[B, embed_dim]`, in the dtype of the tower.

        Raises:
            InputError: the inputs do not fit the tower, or the model has no such tower.
        """
        return self._encode(modality, inputs, normalize, **options)

    @checked
    def lock_tower(self, modality: str, unlocked_groups: int = 0, **options: Any) -> None:
        """Freeze the tower of a modality but for its last groups; the options are those of `Tower.lock`."""
        self._tower(modality).lock(unlocked_groups, **options)

    @checked
    def lock_image_tower(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """Freeze the image tower but for its last groups (LiT, Zhai et al. 2022).

        Args:
            unlocked_groups: how many layer groups, counted from the output, stay trainable.
            freeze_bn_stats: keep the running statistics of locked batch norms.
        """
        self._tower("image").lock(unlocked_groups, freeze_bn_stats=freeze_bn_stats)

    @checked
    def lock_text_tower(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Freeze the text tower but for its last groups.

        Args:
            unlocked_layers: how many layer groups, counted from the output, stay trainable.
            freeze_layer_norm: False leaves the norms trainable everywhere.
        """
        self._tower("text").lock(unlocked_layers, freeze_norms=freeze_layer_norm)

    @checked
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of every tower in the backward pass instead of keeping them.

        Raises:
            CapabilityError: a tower does not claim `gradient-checkpointing`; nothing is changed then.
        """
        changed: list[Tower] = []
        try:
            for tower in self.towers.values():
                tower.set_grad_checkpointing(enable)
                changed.append(tower)
        except Exception:
            for tower in changed:
                tower.set_grad_checkpointing(not enable)
            raise

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that optimizers should not decay, beyond biases and norms."""
        return {
            self.prefixes[name] + parameter
            for name, tower in self.towers.items()
            for parameter in tower.no_weight_decay()
        }

    @checked
    def accepts_key(self, key: str) -> bool:
        """Tell whether a key of a whole model's state dict concerns this model, which may lack a tower."""
        for name, prefix in self.prefixes.items():
            if key.startswith(prefix):
                return name in self.towers
        # published checkpoints of CLIP hold the text tower at the top
        return "text" not in self.modalities or self.text is not None or key in ("logit_scale", "logit_bias")

    def _encode(self, name: str, value: Any, normalize: bool, **options: Any) -> Tensor:
        tower = self._tower(name)
        with self._recording(tower, **{name: value}):
            features = self.modalities[name].encode(self, tower, value, **options)
            return F.normalize(features, dim=-1) if normalize else features

    def _inputs(self, name: str, value: Any) -> Any:
        """Return what the tower of a modality is called with."""
        return self.modalities[name].inputs(self, self._tower(name), value)

    def _recording(self, part: nn.Module, **inputs: Any) -> AbstractContextManager[None]:
        """Return a block in which gradients of inputs of a part of the model are recorded, or not.

        A model in evaluation mode that is given raw inputs is being used, and should cost no graph. But where some
        parameters are frozen and others are not, as with adapters, somebody has chosen what to train.
        """
        for name in inputs:
            self._tower(name)  # which says what the model encodes
        if not torch.is_grad_enabled() or part.training:
            return nullcontext()
        if any(self.modalities[name].is_prepared(value) for name, value in inputs.items()):
            return nullcontext()
        trained = {parameter.requires_grad for parameter in self.parameters()}
        return nullcontext() if len(trained) > 1 else torch.no_grad()

    def _by_modality(self, image: Any, text: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input of each modality of the model, None where it is not there."""
        if self.modalities is IMAGE_AND_TEXT and not inputs:
            return {"image": image, "text": text}
        values = {"image": image, "text": text, **inputs}
        for name, value in values.items():
            if value is not None or (name in inputs and name not in self.modalities):
                self._tower(name)
        return {name: values.get(name) for name in self.modalities}

    def _tower(self, name: str) -> Any:
        modality = self.modalities.get(name)
        tower = None if modality is None else getattr(self, modality.spec.module)
        if tower is None:
            raise InputError(
                f"this model has no modality {describe(name)}; {one_of(self.modalities)}"
                if modality is None
                else f"this model was built without its {name} tower; add '{name}' to towers"
            )
        return tower


def modalities_of(registry: Registry, names: Iterable[str]) -> Mapping[str, Modality]:
    """Return the modalities of a model by their names.

    Raises:
        UnknownNameError: no plugin declares one.
        PluginError: its handler cannot be imported.
    """
    names = list(names)
    if names == list(IMAGE_AND_TEXT):
        return IMAGE_AND_TEXT
    handlers: dict[str, Modality] = {}
    for name in names:
        if name in IMAGE_AND_TEXT:
            handlers[name] = IMAGE_AND_TEXT[name]
        else:
            handler: type[Modality] = registry.modality_class(name, "handler", Modality)
            spec, label = registry.modality(name), registry.modality_label(name)
            made_by(f"{label} ({spec.handler})", handler)
            with PluginCode(label, f"its handler {spec.handler} failed"):
                handlers[name] = handler(spec)
            if getattr(handlers[name], "spec", None) != spec:
                raise PluginError(f"{label}: its handler {spec.handler} must call Modality.__init__ with its spec")
    return handlers
