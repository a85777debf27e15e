"""Builds of the site: pages that the nav does not name go under "More"; the changelog is the repository's own.

Formulas become MathML, which browsers draw by themselves: no script is fetched.
"""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]


def _named(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from _named(value) if isinstance(value, list) else [value]


def on_config(config):
    known = set(_named(config["nav"]))
    found = sorted(p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md"))
    more = [path for path in found if path not in known]
    if more:
        config["nav"].append({"More": more})
    return config


def on_page_markdown(markdown, page, **_):
    if page.file.src_uri == "changelog.md":
        return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return markdown


def on_page_content(content, **_):
    def drawn(match):
        display = match[2] == "["
        formula = html.unescape(match[3]).strip()
        return convert(formula, display="block" if display else "inline")

    return re.sub(r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', drawn, content, flags=re.DOTALL)
