"""A hook of MkDocs: links that lead out of docs/ lead somewhere on the site too, under repository/.

Pages link to results, sources and tests by their place in the repository, so that the links work where the files are
read as they lie. On the site each file so named becomes a page (a source in a code block, a folder as a list), and what
those link to as well. The repository's README is the site's first page.

On the site columns of numbers are aligned, and powers raised. The search finds pages before results, and no sources.
"""

import os
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
PREFIX = PurePosixPath("repository")
DOCS = PurePosixPath("docs")
HOMES = {PurePosixPath("README.md"), DOCS / "README.md"}
INDEX = PurePosixPath("index.md")
CODE = re.compile(r"(^```.*?^```$|^(?:    [^\n]*\n)+|`[^`\n]+`|\$[^$\n]+\$)", re.MULTILINE | re.DOTALL)
POWER = re.compile(r"\b(\d+)\^(\u2212?\d+)\b")
TABLE = re.compile(r"^\|[^\n]*\n\|[-:| ]+\|\n(?:\|[^\n]*\n)+", re.MULTILINE)
CELL = re.compile(r"(?<!\\)\|")
UNIT = "%|\u00d7|x|ms|s|µs|MB|MiB|GB|kB|bytes|M|k"
NUMBER = re.compile(rf"[*~≈<≤]*[-+\u2212]?[\d.,]+(?:<sup>.*?</sup>)?\s?(?:{UNIT})?\**")
STATIC = {".png", ".svg", ".jsonl"}
LEXERS = {".py": "python", ".h": "cpp", ".cc": "cpp", ".sh": "bash", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked to from docs/, and from there, and so on."""
    root = _root(config)
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    waiting = [PurePosixPath("README.md"), *(target for page in pages for target in _outside(page, root))]
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
    path = PurePosixPath(page.file.src_uri)
    if path != INDEX and PREFIX not in path.parents:
        markdown = _as_on_site(markdown, DOCS / path, _root(config))
    return _set(markdown)


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
    if path in HOMES:
        return INDEX
    if DOCS in path.parents:
        return path.relative_to(DOCS)
    if (root / path).is_dir():
        return PREFIX / path / "README.md"
    if path.suffix == ".md" or path.suffix in STATIC:
        return PREFIX / path
    return PREFIX / f"{path}.md"


def _markdown(path: PurePosixPath, root: Path) -> str:
    if (root / path).is_dir():
        return f"# {path}\n\n" + "".join(f"- [{_title(root / one)}]({one.name})\n" for one in _listed(path, root))
    text = (root / path).read_text(encoding="utf-8")
    if path in HOMES:
        return _as_on_site(text, path, root)
    if path.suffix == ".md":
        return "---\nsearch:\n  boost: 0.3\n---\n" + _as_on_site(text, path, root)
    hidden = "---\nsearch:\n  exclude: true\n---\n"
    return f"{hidden}# {path}\n\n````{LEXERS.get(path.suffix, 'text')}\n{text}\n````\n"


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _set(markdown: str) -> str:
    """Columns of numbers aligned to the right, and powers raised, outside of code."""
    parts = CODE.split(markdown)  # every second is code
    parts[::2] = [TABLE.sub(_aligned, POWER.sub(r"\1<sup>\2</sup>", part)) for part in parts[::2]]
    return "".join(parts)


def _aligned(table: re.Match[str]) -> str:
    head, rule, *rows = table[0].splitlines()
    cells = [[cell.strip() for cell in CELL.split(row.strip().strip("|"))] for row in rows]
    numbers = [
        all(not column or NUMBER.fullmatch(column) for column in columns) and any(columns)
        for columns in zip_longest(*cells, fillvalue="")
    ]
    rules = CELL.split(rule.strip().strip("|"))
    aligned = [f"{one.strip(': ')}:" if right else one for one, right in zip_longest(rules, numbers, fillvalue="---")]
    return "\n".join([head, f"|{'|'.join(aligned[: len(rules)])}|", *rows, ""])


def _as_on_site(markdown: str, page: PurePosixPath, root: Path) -> str:
    here = _home(page, root).parent

    def moved(link: re.Match[str]) -> str:
        return os.path.relpath(_home(_resolve(page, link[0], root), root), here)

    return LINK.sub(moved, markdown)
