"""A hook of MkDocs: what lies outside docs/ is named by its path, since the site does not hold it."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to files outside docs/ by their text and path."""

    def name(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        return f"`{path}`" if text in (path, f"`{path}`") else f"{text} (`{path}`)"

    return _OUTSIDE.sub(name, markdown)
