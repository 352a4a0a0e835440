"""The site has the files that its pages link to outside of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

OUTSIDE = re.compile(r"\]\(\.\./(?P<path>[^)#]+)(?P<anchor>#[^)]*)?\)")
"""A link to a file of the repository."""


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to."""
    for page in list(files.documentation_pages()):
        for found in OUTSIDE.finditer(page.content_string):
            name, path = f"files/{found['path']}", ROOT / found["path"]
            if path.is_file() and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at these files."""
    return OUTSIDE.sub(lambda found: f"](files/{found['path']})", markdown)
