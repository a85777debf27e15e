"""Panels as one SVG file that carries its own colors."""

from collections.abc import Sequence

from tutelage.report.svg import esc

STYLE = (
    "svg{--bg:#fff;--ink:#1a1f26;--muted:#57606a;--line:#d5dae0;background:#fff}text{font:12px system-ui,sans-serif;fill:var(--muted)}"
    ".lab,.note,.val{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:var(--line);fill:none}.axis{stroke:#7c8692;fill:none}"
    ".ref{stroke:var(--muted);stroke-dasharray:2 3;fill:none}.lead{stroke:var(--muted);opacity:.4;fill:none}.l{stroke:var(--c);stroke-width:2.4;fill:none}"
    ".ci{stroke-width:3;opacity:.45}.dash{stroke-dasharray:5 4;stroke-width:1.2;opacity:.7}.m{fill:var(--c);stroke:var(--c)}"
    ".band{fill:var(--c);opacity:.13}"
    ".hollow{fill:#fff}.s-gold{--c:#1a1f26}.s-base{--c:#5c6775}.s-sft{--c:#000ea3}.s-ppo{--c:#cc400c}.s-ptx{--c:#058760}"
)
WIDTH = 400


def together(panels: Sequence[str], titles: Sequence[str], title: str) -> str:
    """Panels below each other's titles in one SVG."""
    parts, top = [], 34
    for panel, heading in zip(panels, titles, strict=False):
        parts.append(f'<text class="lab" x="8" y="{top + 12}">{esc(heading)}</text>')
        height = int(panel.split('viewBox="0 0 ')[1].split('"')[0].split()[1])
        parts.append(panel.replace("<svg ", f'<svg x="0" y="{top + 18}" width="{WIDTH}" height="{height}" ', 1))
        top += height + 30
    head = f'<text class="val" x="8" y="20" font-size="14">{esc(title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img">'
        f"<title>{esc(title)}</title><style>{STYLE}</style>{head}{''.join(parts)}</svg>\n"
    )
