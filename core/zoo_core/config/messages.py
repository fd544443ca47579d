"""What is wrong with a config, in sentences: pydantic's errors say neither what is allowed nor which name is near."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from zoo_core.documents import Document
from zoo_core.errors import Problem, describe, did_you_mean, dotted, one_of

__all__ = ["EXPLAINED", "all_explained", "placed", "problems", "wrong"]

EXPLAINED = "zoo"
"""Error type of problems that already carry their final message."""
MOST = 32
"""So many problems of one section are told; the search for the nearest of the known names takes time for each."""


def problems(error: ValidationError, source: str = "") -> list[Problem]:
    """Return what pydantic found as problems, with dotted keys."""
    return [Problem(one["msg"], dotted(one["loc"]), source) for one in error.errors(include_url=False)]


def placed(error: ValidationError, document: Document) -> list[Problem]:
    """Return what pydantic found in a document, each with the place of its key, in file order."""
    found: list[Problem] = []
    for one in error.errors(include_url=False):
        path = one["loc"]
        origin = f" (from {document.references[path]})" if path in document.references else ""
        found.append(document.mark(path).problem(one["msg"] + origin, dotted(path)))
    return sorted(found, key=lambda problem: (problem.source, problem.line, problem.column))


def all_explained(cls: type[BaseModel], error: ValidationError) -> list[InitErrorDetails]:
    """Rewrite pydantic's errors as sentences: the first `MOST` of a section, and how many more there are."""
    errors = error.errors(include_url=False)
    fresh = [one for one in errors if one["type"] != EXPLAINED]
    details = [explained(cls, one) for one in errors if one["type"] == EXPLAINED]
    details += [explained(cls, one) for one in fresh[:MOST]]
    if len(fresh) > MOST:
        more = wrong(f"there are {len(fresh) - MOST:,} more problems")
        details.append(InitErrorDetails(type=more, loc=fresh[MOST]["loc"][:-1], input=None))
    return details


def explained(cls: type[BaseModel], error: ErrorDetails) -> InitErrorDetails:
    """Rewrite one of pydantic's errors as a sentence that says what was found and what is allowed."""
    message = error["msg"] if error["type"] == EXPLAINED else _sentence(cls, error)
    return InitErrorDetails(
        type=PydanticCustomError(EXPLAINED, "{message}", {"message": message}),
        loc=error["loc"],
        input=error["input"],
    )


def _sentence(cls: type[BaseModel], error: ErrorDetails) -> str:
    found = describe(error["input"])
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            key = str(error["loc"][-1])
            ours: str | None = getattr(cls, "other_names", {}).get(key)
            return f"unknown key{did_you_mean(key, cls.model_fields) if ours is None else f', did you mean {ours!r}?'}"
        case "missing":
            return "required key is missing"
        case "int_type" | "int_from_float" | "int_parsing":
            return f"expected a whole number, found {found}"
        case "float_type" | "float_parsing":
            return f"expected a number, found {found}"
        case "bool_type" | "bool_parsing":
            return f"expected true or false, found {found}"
        case "string_type":
            return f"expected a string, found {found}"
        case "finite_number":
            return f"expected a finite number, found {found}"
        case "greater_than":
            return f"must be greater than {context['gt']:g}, found {found}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, found {found}"
        case "less_than":
            return f"must be less than {context['lt']:g}, found {found}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}, found {found}"
        case "literal_error":
            choices = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
            text = error["input"] if isinstance(error["input"], str) else ""
            near = did_you_mean(text, choices).partition("; allowed")[0]
            return f"{found} is not known{near} ({one_of(choices)})"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a section of keys, found {found}"
        case _:
            return f"{error['msg']}, found {found}"


def wrong(message: str) -> PydanticCustomError:
    """Return what a validator raises to have its message told as it is."""
    return PydanticCustomError(EXPLAINED, "{message}", {"message": message})
