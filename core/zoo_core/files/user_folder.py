"""Where zoo keeps what it remembers for a user: nothing that cannot be made again, and nothing of the user's own."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["user_folder"]


def user_folder() -> Path:
    """Return the folder of the environment variable `ZOO_HOME`, else the platform's folder for a program's settings."""
    named = os.environ.get("ZOO_HOME")
    if named:
        return Path(named)
    import typer

    return Path(typer.get_app_dir("zoo"))
