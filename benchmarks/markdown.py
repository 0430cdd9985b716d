"""Tables in Markdown, and their places in a page."""

from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(page: Path, name: str, text: str) -> None:
    """Puts the text between the marks `begin: NAME` and `end: NAME` of a Markdown page; a page
    without them is left."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    old = page.read_text(encoding="utf-8")
    head, found, rest = old.partition(begin)
    _, closed, tail = rest.partition(end)
    if found and closed:
        page.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
