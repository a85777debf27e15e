"""Answers shown as markdown, by a renderer that lets no markup of theirs through.

What stands in an answer becomes text within a few elements of ours: HTML and images are shown as they are written,
headings are paragraphs (the page's own outline stays whole), and links lead to web and mail addresses only.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token
from markupsafe import Markup

LONGEST = 40_000  # characters; a longer answer is shown as text
LINKS = re.compile(r"(https?://|mailto:)", re.IGNORECASE)


class _Renderer(MarkdownIt):
    def validateLink(self, url: str) -> bool:
        return LINKS.match(url) is not None


def _image(renderer: Any, tokens: Sequence[Token], place: int, *_: Any) -> str:
    one = tokens[place]
    return escapeHtml(f"![{one.content}]({one.attrGet('src')})")


_MARKDOWN = _Renderer("commonmark", {"html": False}).enable(["table", "strikethrough"])
_MARKDOWN.disable("reference")  # it would hide the line that defines one
_MARKDOWN.add_render_rule("image", _image)


@lru_cache(maxsize=2048)  # a card is rendered again for each labeler
def markdown(text: str) -> Markup:
    """Markup that is safe in any page: no script, no style, no class that the text chose, nothing that is fetched."""
    if len(text) > LONGEST:
        return Markup('<p class="as-is">{}</p>').format(text)
    tokens = _MARKDOWN.parse(text)
    for one in tokens:
        _restrict(one)
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def _restrict(token: Token) -> None:
    for inner in token.children or []:
        _restrict(inner)
    token.info = ""  # a fence's language would become a class
    if token.type == "link_open":
        token.attrSet("rel", "noopener noreferrer nofollow")
        token.attrSet("target", "_blank")  # unsent work stays where it is
    elif token.type in ("heading_open", "heading_close"):
        token.tag = "p"
        token.attrs = {"class": "heading"} if token.nesting == 1 else {}
    elif token.type in ("th_open", "td_open"):
        token.attrs = {}  # a column's alignment would be a style
