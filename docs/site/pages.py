"""Hook of MkDocs: pages of the repository that lie outside ``docs/``, and links of all pages to what is not a page.

Every page keeps links that work where it is read on its own, in the repository. On the site a link to a file that has a
page there leads to that page; a link to another file of the repository becomes the file's name.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "bundles/anomalyclip_tiny/docs/README.md": "bundles/anomalyclip_tiny.md",
    "bundles/anomalyclip_vitl14_336/docs/README.md": "bundles/anomalyclip_vitl14_336.md",
    "recipes/tiny/README.md": "recipes/tiny.md",
}
"""File of the repository -> page of the site."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs/``."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Turn the links of a page into those of the site."""
    known = {file.src_uri for file in files}
    return with_links_of_the_site(markdown, page.file.src_uri, known)


def with_links_of_the_site(markdown: str, page: str, known: set[str]) -> str:
    """The text of a page with its links turned.

    Args:
        markdown: as in the repository.
        page: of the site, as ``recipes/tiny.md``.
        known: all files of the site.
    """
    sources = {other: source for source, other in PAGES.items()}
    source = PurePosixPath(sources.get(page, f"docs/{page}"))

    def turned(found: re.Match[str]) -> str:
        path, hash_, anchor = found["target"].partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found[0]
        target = os.path.normpath(source.parent / path)
        there = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if there in known:
            link = os.path.relpath(there, PurePosixPath(page).parent)
            return f"{found['image']}[{found['text']}]({link}{hash_}{anchor})"
        if (ROOT / target).exists():
            name = f"`{target}`"
            return name if found["text"].strip("`") in (path, target) else f"{found['text']} ({name})"
        return found[0]  # a dead link, which MkDocs names

    return LINK.sub(turned, markdown)
