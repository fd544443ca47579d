"""Errors of pydantic, rewritten as sentences.

pydantic says neither what is allowed nor which name is near.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from zoo_core.documents import Document
from zoo_core.errors import Problem, describe, did_you_mean, dotted, one_of

__all__ = ["EXPLAINED", "all_explained", "placed", "problems", "wrong"]

EXPLAINED = "zoo"
"""Error type of problems that already carry their final message."""
MAX_EXPLAINED = 32
"""Problems of one section that are explained; each takes a search for the nearest name."""


def problems(error: ValidationError, source: str = "") -> list[Problem]:
    """Return what pydantic found as problems, with dotted keys."""
    return [Problem(entry["msg"], dotted(entry["loc"]), source) for entry in error.errors(include_url=False)]


def placed(error: ValidationError, document: Document) -> list[Problem]:
    """Return what pydantic found in a document, each with the place of its key, in file order."""
    problems: list[Problem] = []
    for entry in error.errors(include_url=False):
        path = entry["loc"]
        origin = f" (from {document.references[path]})" if path in document.references else ""
        problems.append(document.mark(path).problem(entry["msg"] + origin, dotted(path)))
    return sorted(problems, key=lambda problem: (problem.source, problem.line, problem.column))


def all_explained(cls: type[BaseModel], error: ValidationError) -> list[InitErrorDetails]:
    """Rewrite pydantic's errors as sentences: the first `MAX_EXPLAINED` of a section, and how many more there are."""
    errors = error.errors(include_url=False)
    details = [explained(cls, entry) for entry in errors if entry["type"] == EXPLAINED]
    fresh = [entry for entry in errors if entry["type"] != EXPLAINED]
    details += [explained(cls, entry) for entry in fresh[:MAX_EXPLAINED]]
    if len(fresh) > MAX_EXPLAINED:
        more = wrong(f"there are {len(fresh) - MAX_EXPLAINED:,} more problems")
        details.append(InitErrorDetails(type=more, loc=fresh[MAX_EXPLAINED]["loc"][:-1], input=None))
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
    value = describe(error["input"])
    context: dict[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            key = str(error["loc"][-1])
            name: str | None = getattr(cls, "other_names", {}).get(key)  # ours, where another library's name is written
            return f"unknown key{did_you_mean(key, cls.model_fields) if name is None else f', did you mean {name!r}?'}"
        case "missing":
            return "required key is missing"
        case "int_type" | "int_from_float" | "int_parsing":
            return f"expected a whole number, found {value}"
        case "float_type" | "float_parsing":
            return f"expected a number, found {value}"
        case "bool_type" | "bool_parsing":
            return f"expected true or false, found {value}"
        case "string_type":
            return f"expected a string, found {value}"
        case "finite_number":
            return f"expected a finite number, found {value}"
        case "greater_than":
            return f"must be greater than {context['gt']:g}, found {value}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, found {value}"
        case "less_than":
            return f"must be less than {context['lt']:g}, found {value}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}, found {value}"
        case "literal_error":
            choices = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
            text = error["input"] if isinstance(error["input"], str) else ""
            near = did_you_mean(text, choices).partition("; allowed")[0]
            return f"{value} is not known{near} ({one_of(choices)})"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a section of keys, found {value}"
        case _:
            return f"{error['msg']}, found {value}"


def wrong(message: str) -> PydanticCustomError:
    """Return what a validator raises, so that its message stays as it is."""
    return PydanticCustomError(EXPLAINED, "{message}", {"message": message})
