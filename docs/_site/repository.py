"""A hook of MkDocs: links that lead out of docs/ lead somewhere on the site too, under repository/.

Pages link to results, sources and tests by their place in the repository, so that the links work where the files are
read as they lie. On the site each file so named becomes a page (a source in a code block, a folder as a list), and what
those link to as well.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
PREFIX = PurePosixPath("repository")
DOCS = PurePosixPath("docs")
STATIC = {".png", ".svg", ".jsonl"}
LEXERS = {".py": "python", ".h": "cpp", ".cc": "cpp", ".sh": "bash", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked to from docs/, and from there, and so on."""
    root = _root(config)
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    waiting = [target for page in pages for target in _outside(page, root)]
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(str(_home(path, root))) is not None:
            continue
        if path.suffix in STATIC:
            content: str | bytes = (root / path).read_bytes()
        else:
            content = _markdown(path, root)
        files.append(File.generated(config, str(_home(path, root)), content=content))
        if path.suffix == ".md":
            waiting += _outside(path, root)
        elif (root / path).is_dir():
            waiting += _listed(path, root)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page of docs/, as they are on the site."""
    if PREFIX in PurePosixPath(page.file.src_uri).parents:
        return markdown
    return _as_on_site(markdown, DOCS / page.file.src_uri, _root(config))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _resolve(page: PurePosixPath, target: str, root: Path) -> PurePosixPath:
    """The file of the repository that a page links to; of a folder, its README if it has one."""
    path = PurePosixPath(os.path.normpath(page.parent / target))
    if path.parts[0] == ".." or not (root / path).exists():
        raise PluginError(f"{page} links to {target}, which does not exist")
    return path / "README.md" if (root / path / "README.md").exists() else path


def _outside(page: PurePosixPath, root: Path) -> Iterator[PurePosixPath]:
    for target in LINK.findall((root / page).read_text(encoding="utf-8")):
        path = _resolve(page, target, root)
        if DOCS not in path.parents:
            yield path


def _listed(folder: PurePosixPath, root: Path) -> list[PurePosixPath]:
    return [folder / path.name for path in sorted((root / folder).glob("*.md"))]


def _home(path: PurePosixPath, root: Path) -> PurePosixPath:
    """Where the site has a file of the repository."""
    if DOCS in path.parents:
        return path.relative_to(DOCS)
    if (root / path).is_dir():
        return PREFIX / path / "README.md"
    if path.suffix == ".md" or path.suffix in STATIC:
        return PREFIX / path
    return PREFIX / f"{path}.md"


def _markdown(path: PurePosixPath, root: Path) -> str:
    if (root / path).is_dir():
        return f"# {path}\n\n" + "".join(f"- [{one.name}]({one.name})\n" for one in _listed(path, root))
    text = (root / path).read_text(encoding="utf-8")
    if path.suffix == ".md":
        return _as_on_site(text, path, root)
    return f"# {path}\n\n````{LEXERS.get(path.suffix, 'text')}\n{text}\n````\n"


def _as_on_site(markdown: str, page: PurePosixPath, root: Path) -> str:
    here = _home(page, root).parent

    def moved(link: re.Match[str]) -> str:
        return os.path.relpath(_home(_resolve(page, link[0], root), root), here)

    return LINK.sub(moved, markdown)
