"""Configs of the evaluators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from zoo.evaluation.labels import parse_labels
from zoo.evaluation.templates import TEMPLATE, check_templates
from zoo_core.config import DatasetConfig, EvaluatorConfig, Section
from zoo_core.errors import ZooError

__all__ = ["RetrievalConfig", "SampledConfig", "ZeroShotConfig"]

Count = Annotated[int, Field(ge=1)]


class SampledConfig(EvaluatorConfig):
    """What evaluators over a data set share."""

    samples: Count | None = None
    """How many samples are measured, spread evenly over the data set; all where null."""
    batch: Count = 64
    """Samples that are encoded at a time, in each process."""


class ZeroShotConfig(SampledConfig):
    """Zero-shot classification: how often the class of an image is the nearest of all, as `top1` and more."""

    other_names: ClassVar[Mapping[str, str]] = {"prompts": "templates", "labels": "classes"}

    type: str = "zero-shot"
    folder: str | None = None
    """A folder that holds a folder of images for each class, called as the class; or `dataset` instead."""
    dataset: Annotated[DatasetConfig, Section(DatasetConfig)] | None = None
    """A data set, in which `label` says the class of an image."""
    label: Literal["text", "id"] = "text"
    """What says the class of a sample of `dataset`: its first text, or its id."""
    classes: dict[str, str | list[str]] | list[str] | str | None = None
    """A list of names, "cat, dog", "@labels.txt" (one a line), or for each label its name or names, such as
    `{n02124075: [Egyptian cat, mau]}`; the classes that occur where null."""
    templates: list[str] | str = TEMPLATE
    """Captions in which `{}` stands for the class, or the name of a set of them, such as imagenet-80."""

    def rules(self) -> Iterator[tuple[str, str]]:
        """Hold it to one source of images, and names to their form."""
        yield from super().rules()
        if (self.folder is None) == (self.dataset is None):
            number = "neither" if self.dataset is None else "both"
            yield "dataset", f"state one of dataset and folder, found {number}"
        try:
            check_templates(self.templates)
        except ZooError as error:
            yield "templates", str(error)
        try:
            if isinstance(self.classes, str):
                parse_labels(self.classes)
        except ZooError as error:
            yield "classes", str(error)


class RetrievalConfig(SampledConfig):
    """Retrieval in both directions: `image_to_text_r1`, `text_to_image_r1` and so on."""

    type: str = "retrieval"
    dataset: Annotated[DatasetConfig, Section(DatasetConfig)]
    """A data set. All texts of a sample are right answers to its image."""
    ids: bool = True
    """Whether samples of one id are one image with several texts, such as the rows of a table with a caption each;
    where false, each sample is an image of its own."""
    ks: Annotated[list[Count], Field(min_length=1)] = [1, 5, 10]
    """Recall is measured among so many of the nearest."""
