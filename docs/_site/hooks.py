"""Hooks of mkdocs: complete the pages with what is made from the code, and check that nothing is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs._site import frames, javascript, python
from docs._site.lists import BROKEN_ITEM, with_wide_indents
from docs._site.public_names import DOCS, HEADED, public_names, set_up_django
from docs._site.tables import with_column_names

log = get_plugin_logger("docs_site")
ROOT = DOCS.parent
GENERATED: dict[str, Callable[[], str]] = {
    "error kinds": python.error_kind_table,
    "errors": python.error_table,
    "frames": frames.frame_reference,
    "names": python.name_list,
    **{f"javascript {name}": partial(javascript.module_reference, name) for name in javascript.MODULES},
}
"""What a comment ``<!-- reference: NAME -->`` on a page stands for."""
_CODE = re.compile(r"<pre.*?</pre>", re.DOTALL)
_COMMENT = re.compile(r"^<!-- reference: (.+) -->$", re.MULTILINE)
_OUTWARD = re.compile(r"(?<=\]\()(?:\.\./)+([^)#\s]+)")
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")
LANGUAGES = {".py": "python", ".json": "json", ".js": "js", ".ts": "ts"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the package importable for the parts that are made from it."""
    set_up_django()
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the project's root, and the source files to which pages link."""
    for name in ROOT_PAGES:
        content = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name.lower(), content=content))
    for path in sorted({path for page in DOCS.rglob("*.md") for path in _outward_links(page)}):
        name = path.relative_to(ROOT).as_posix()
        if name not in ROOT_PAGES:
            code = path.read_text(encoding="utf-8")
            content = f"---\nsearch:\n  exclude: true\n---\n# {name}\n\n````{LANGUAGES[path.suffix]}\n{code}\n````\n"
            page = File.generated(config, _site_path(name), content=content, inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(page)
    return files


def _site_path(name: str) -> str:
    """Return the page of a file outside of ``docs``."""
    return name.lower() if name in ROOT_PAGES else f"source/{name}.md"


def _outward_links(page: Path) -> set[Path]:
    """Return the files outside of ``docs`` to which a page links."""
    links = re.findall(r"\]\(((?:\.\./)+[^)#\s]+)", page.read_text(encoding="utf-8"))
    targets = {(page.parent / link).resolve() for link in links}
    return {target for target in targets if target.is_file() and not target.is_relative_to(DOCS)}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete a page with signatures and generated entries, and turn links to source files to their pages."""
    if page.file.src_uri in HEADED:
        markdown = python.with_signatures(page.file.src_uri, markdown)
    markdown = with_wide_indents(_COMMENT.sub(lambda comment: GENERATED[comment[1]](), markdown))
    return _OUTWARD.sub(lambda link: _to_source(link, page, files), markdown)


def _to_source(link: re.Match[str], page: Page, files: Files) -> str:
    source = _site_path(link[1])
    if files.get_file_from_path(source) is None:
        return link[0]
    return f"{'../' * page.file.src_uri.count('/')}{source}"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name the columns in wide tables. Warn of an item of a list that has become text."""
    if BROKEN_ITEM.search(_CODE.sub("", html)):
        log.warning("A list of %s is not indented as a list.", page.file.src_uri)
    return with_column_names(html)


class _Ids(HTMLParser):
    """Collects the ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value for name, value in attrs if name == "id" and value}


def on_post_build(config: MkDocsConfig) -> None:
    """Check the built pages. Raises PluginError if a public name has no entry on any of them."""
    ids = _Ids()
    for page in Path(config.site_dir, "reference").rglob("*.html"):
        ids.feed(page.read_text(encoding="utf-8"))
    missing = sorted(public_names() - ids.found)
    if missing:
        raise PluginError(f"These public names have no entry in the reference: {', '.join(missing)}")
