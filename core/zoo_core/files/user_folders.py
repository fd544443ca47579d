"""Folders of the user: data to keep, and a cache.

The environment variable `ZOO_HOME` names one folder for both.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["user_cache_folder", "user_data_file"]


def user_data_file(name: str) -> Path:
    """Return the path of a file that cannot be made again; it need not be there.

    Up to version 0.1 it was in the platform's folder for settings. A file that is there and nowhere else stays there.
    """
    if home := os.environ.get("ZOO_HOME"):
        return Path(home) / name
    import platformdirs

    path = platformdirs.user_data_path("zoo", appauthor=False) / name
    former_path = platformdirs.user_config_path("zoo", appauthor=False, roaming=True) / name
    # os.path.exists, since Path.exists raises an error where a folder is closed
    return former_path if os.path.exists(former_path) and not os.path.exists(path) else path  # noqa: PTH110


def user_cache_folder() -> Path:
    """Return the folder of what is remembered and can be made again."""
    if home := os.environ.get("ZOO_HOME"):
        return Path(home)
    import platformdirs

    return platformdirs.user_cache_path("zoo", appauthor=False)
