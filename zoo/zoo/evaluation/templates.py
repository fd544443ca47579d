"""Templates that make captions of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files

from zoo_core.errors import InputError, UnknownNameError, describe, did_you_mean, reason

__all__ = ["TEMPLATE", "Template", "caption_of", "check_templates", "template_set", "template_sets"]

Template = str | Callable[[str], str]
"""A caption in which `{}` stands for the label, or what makes a caption of a label."""

TEMPLATE = "a photo of a {}"


def template_sets() -> tuple[str, ...]:
    """Return the names of the sets of templates that come with zoo."""
    return tuple(sorted(path.name.removesuffix(".txt") for path in files("zoo").joinpath("templates").iterdir()))


@cache
def template_set(name: str) -> tuple[str, ...]:
    """Return the templates of a set.

    Raises:
        UnknownNameError: there is no such set; the nearest is named.
    """
    if name not in template_sets():
        raise UnknownNameError(f"there is no set of templates {describe(name)}{did_you_mean(name, template_sets())}")
    lines = files("zoo").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def check_templates(templates: Template | Iterable[Template]) -> tuple[Template, ...]:
    """Return templates as a tuple; a name of a set stands for those of the set.

    Raises:
        InputError: there is none, or one has no place for the label.
        UnknownNameError: there is no such set.
    """
    if isinstance(templates, str):
        checked = (templates,) if "{}" in templates or " " in templates else template_set(templates)
    else:
        checked = (templates,) if callable(templates) else tuple(templates)
    if not checked:
        raise InputError("templates: expected at least one caption with '{}' in it, found none")
    for template in checked:
        if not isinstance(template, str) and not callable(template):
            raise InputError(
                f"template: expected a caption with '{{}}' in it or a function, found {describe(template)}"
            )
        if isinstance(template, str) and "{}" not in template:
            raise InputError(f"template: '{{}}' has to stand where the label goes, found {describe(template)}")
    return checked


def caption_of(label: str, template: Template) -> str:
    """Return the caption that a template makes of a label.

    Raises:
        InputError: a function failed, or made no string.
    """
    if isinstance(template, str):
        return template.replace("{}", label)
    try:
        caption: object = template(label)
    except Exception as error:
        raise InputError(
            f"template: {describe(template)} failed for {describe(label)}: {reason(error, 100)}"
        ) from error
    if not isinstance(caption, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"template: {describe(template)} must make a string of {describe(label)}, found {type(caption).__name__}"
        )
    return caption
