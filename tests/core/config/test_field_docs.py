"""What a JSON Schema says of each key: the string below the field, read when it is asked for, and as pydantic reads it."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import ConfigDict, Field

from zoo_core.config import Config
from zoo_core.config.field_docs import field_docstrings


class Part(Config):
    """A part."""

    size: int = 1
    """Its size,
    in pixels."""


class Base(Config):
    """A base."""

    kept: int = 1
    """Of the base."""
    again: int = 1
    """Of the base too."""
    silent: int = 1
    part: Part = Part()
    """A part of it."""


class Thing(Base):
    """A thing."""

    own: Annotated[int, Field(ge=0)] = 1
    """Of its own."""
    again: int = 2
    named: int = Field(default=1, description="As its field says.")
    """Not this."""
    other: int = Field(default=1, alias="by-another-name")
    """By its alias."""

    def rules(self) -> Any:
        """No field."""
        yield from super().rules()

    "no field either"


def test_each_key_is_described_by_the_string_below_it() -> None:
    schema = Thing.model_json_schema()
    told = {key: field.get("description") for key, field in schema["properties"].items()}
    assert told == {
        "kept": "Of the base.",
        "again": None,
        "silent": None,
        "part": "A part of it.",
        "own": "Of its own.",
        "named": "As its field says.",
        "by-another-name": "By its alias.",
    }
    assert schema["$defs"]["Part"]["properties"]["size"]["description"] == "Its size,\nin pixels."


def test_a_class_within_a_function_is_read_too() -> None:
    class Inner(Config):
        width: int
        """Its width,
in tokens, and this line is not indented."""

    assert field_docstrings(Inner, Config) == {"width": "Its width,\nin tokens, and this line is not indented."}


def test_a_class_without_source_describes_nothing() -> None:
    made: dict[str, Any] = {"Config": Config, "__name__": "nowhere"}
    exec("class Made(Config):\n    width: int\n    'Its width.'", made)
    assert "description" not in made["Made"].model_json_schema()["properties"]["width"]


def test_pydantic_reads_the_same_strings() -> None:
    class Eager(Config):
        model_config = ConfigDict(use_attribute_docstrings=True)

        own: Annotated[int, Field(ge=0)] = 1
        """Of its own, and
        of two lines."""
        silent: int = 1
        part: Part = Part()
        """A part of it."""

    told = {name: field.description for name, field in Eager.model_fields.items() if field.description is not None}
    assert told == field_docstrings(Eager, Config)


@pytest.mark.parametrize("cls", [Base, Thing])
def test_a_class_is_made_without_reading_its_source(cls: type[Config]) -> None:
    assert {field.description for field in cls.model_fields.values()} <= {None, "As its field says."}
