"""One HTML file that opens without a connection: its style and script are inside, and nothing else may be loaded or run."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from tutelage.report.svg import esc

HERE = Path(__file__).parent
Section = tuple[str, str, str]  # id, title, HTML


def document(title: str, kind: str, sentence: str, intro: str, sections: Sequence[Section]) -> str:
    """The page. sentence: its heading; intro: HTML before the contents; sections without HTML are left out."""
    kept = [s for s in sections if s[2]]
    toc = "".join(f'<li><a href="#{esc(i)}">{esc(heading)}</a></li>' for i, heading, _ in kept)
    body = "".join(f'<section id="{esc(i)}"><h2>{esc(heading)}</h2>{inner}</section>' for i, heading, inner in kept)
    style, script = ((HERE / f).read_text("utf-8") for f in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(policy).replace("&#x27;", "&#39;")}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{esc(title)} · Tutelage {esc(kind)}</title><style>{style}</style></head><body>"
        f'<header class="top"><p class="mark"><b>Tutelage</b> · {esc(title)}</p>'
        '<button type="button" id="theme">Theme</button></header>'
        f'<main><h1>{esc(sentence)}</h1>{intro}<nav class="toc" aria-label="Contents"><ul>{toc}</ul></nav>'
        f"{body}</main><script>{script}</script></body></html>"
    )


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
