"""Take into the site what the pages link to outside of docs/, at its place in the repository.

So a page is written once, and its relative links work in the repository and on the site.
"""

import os.path
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"(?<=\]\()[^)#\s]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files, and those that they link to."""
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    pages += [ROOT / uri for uri in _pages(config.nav) if not (DOCS / uri).exists()]
    queue = [*pages]
    for page in queue:
        linked = _linked_files(page) if page.suffix == ".md" else ()
        queue += [path for path in linked if path not in queue]
    for path in queue:
        if not path.is_relative_to(DOCS) and path != ROOT / "README.md":
            files.append(File.generated(config, _site_uri(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links to the files' places on the site."""
    source, folder = Path(page.file.abs_src_path or ""), os.path.dirname(page.file.src_uri)

    def on_site(link: re.Match[str]) -> str:
        path = (source.parent / link[0]).resolve()
        return os.path.relpath(_site_uri(path), folder) if path.is_file() else link[0]

    return LINK.sub(on_site, markdown)


def _pages(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from _pages(item)


def _linked_files(page: Path) -> list[Path]:
    targets = LINK.findall(page.read_text())
    paths = [(page.parent / target).resolve() for target in targets if "://" not in target]
    return [path for path in paths if path.is_file() and path.is_relative_to(ROOT)]


def _site_uri(path: Path) -> str:
    if path == ROOT / "README.md":
        return "index.md"
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
