"""Hooks of MkDocs: pages from the top of the project, links.

Pages are written for a reader of the files. The README is the first page of the site, so its links change there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files beside `docs/`, and the pages that they become."""
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand beside `docs/`."""
    for source, page in TOP.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Return a page with the links and the titles of code as the site has them."""
    uri = page.file.src_uri
    source = next((name for name, generated in TOP.items() if generated == uri), f"docs/{uri}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        path = posixpath.normpath(PurePosixPath(source).parent / target)
        target_page = TOP.get(path) or path.removeprefix("docs/")
        if target_page in files.src_uris:
            return f"[{text}]({'../' * uri.count('/')}{target_page}{anchor or ''})"
        # The site holds no folders and programs of the project. MkDocs itself refuses what does not exist at all.
        return text if (ROOT / path).exists() else match[0]

    markdown = _LINK.sub(link, markdown)
    return re.sub(r"^```(\w+) file=(\S+)$", r'```\1 title="\2"', markdown, flags=re.MULTILINE)
