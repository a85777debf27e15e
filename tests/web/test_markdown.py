"""Answers as markdown: what it is for is shown, and nothing of an answer becomes markup of its own choosing."""

import re
import time
from html.parser import HTMLParser

import pytest

from tutelage.web.markdown import LONGEST, markdown

ELEMENTS = {
    *("p", "br", "em", "strong", "s", "code", "pre", "ul", "ol", "li", "blockquote", "hr", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


class Seen(HTMLParser):
    """Elements with their attributes, and the text, as a browser reads them."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def safe(text):
    """What is seen of it, after a check of every element and attribute."""
    seen = Seen(str(markdown(text)))
    for tag, attributes in seen.elements:
        assert tag in ELEMENTS, (tag, text)
        if tag == "a":
            assert set(attributes) <= {"href", "rel", "target", "title"}
            assert re.match(r"(https?://|mailto:)", attributes["href"], re.I)
            assert attributes["rel"] == "noopener noreferrer nofollow"
        elif tag == "p":
            assert attributes in ({}, {"class": "heading"}, {"class": "as-is"})
        else:
            assert not attributes or (tag == "ol" and set(attributes) == {"start"}), (tag, attributes)
    return seen


def test_what_markdown_is_for():
    seen = safe(
        "# Title\n\n*a* **b** ~~c~~ `d`\n\n3. one\n4. two\n\n> said\n\n```python\nx = 1 < 2\n```\n\n"
        "| a | b |\n|:--|--:|\n| 1 | 2 |\n\n[link](https://example.org/a?b=1&c=2) <mailto:a@b.org>\n\n---\n"
    )
    assert {tag for tag, _ in seen.elements} == ELEMENTS - {"br", "ul"}
    assert seen.elements[0] == ("p", {"class": "heading"}) and "x = 1 < 2" in seen.text
    assert ("ol", {"start": "3"}) in seen.elements
    links = [attributes["href"] for tag, attributes in seen.elements if tag == "a"]
    assert links == ["https://example.org/a?b=1&c=2", "mailto:a@b.org"]


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <b onclick=alert(1)>bold</b>",
    "<style>*{display:none}</style>",
    "<iframe src='https://evil.example'></iframe>",
    "<!-- comment --><svg/onload=alert(1)>",
    "<?php echo 1 ?><![CDATA[x]]>",
    "<form action=/people/invite><input name=csrf></form>",
    "![pixel](https://evil.example/pixel.png)",
    '![x](https://evil.example/a.png "t" onerror=alert(1))',
    "![x](javascript:alert(1))",
    "![<script>alert(1)</script>](https://evil.example/a.png)",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](\tjavascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](data:image/png;base64,AAAA)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example)",
    "[x](/logout)",
    "[x](#main)",
    "<javascript:alert(1)>",
    "<data:text/html,x>",
    "[x]: javascript:alert(1)\n\n[x]",
    "[hidden]: https://evil.example",
    '[x](https://a.example "\\"><script>alert(1)</script>")',
    '[x](https://a.example/"onmouseover="alert(1))',
    "[<img src=x onerror=alert(1)>](https://a.example)",
    '```x"><script>alert(1)</script>\ncode\n```',
    "```primary sticky\ncode\n```",
    "# <script>alert(1)</script>\n\n<h1>x</h1>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "`<script>alert(1)</script>`",
    "|<script>|\n|---|\n|<img src=x onerror=alert(1)>|",
    '|a|\n|:-:" style="color:red|\n|b|',
    "\x00<script\x00>alert(1)</script>",
    "{{ 7*7 }}{% raw %}",
    "<scr<script>ipt>alert(1)</script>",
    "\u202e<script>\u2028alert(1)",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs_is_fetched_or_leads_out_of_the_web(attack):
    seen = safe(attack)
    for tag in ("script", "img", "style", "iframe", "svg", "form"):
        if attack.startswith(f"<{tag}"):  # it is shown, not swallowed
            assert f"<{tag}" in seen.text


def test_images_and_definitions_are_shown_as_they_are_written():
    assert (
        safe("see ![a cat](https://example.org/cat.png)!").text.strip() == "see ![a cat](https://example.org/cat.png)!"
    )
    assert "[id]: https://example.org" in safe("[id]: https://example.org").text


def test_every_two_attacks_together():
    for first in ATTACKS:
        for second in ATTACKS[::3]:
            safe(f"{first} {second}")
            safe(f"- {first}\n> {second}\n\n[{first}]({second})")


@pytest.mark.parametrize("piece", ["[", "![", "[a](", "> ", "- ", "*a ", "`a``b", "<http:", "|a", "* a\n", "&#", "\\"])
def test_no_text_keeps_the_server_busy(piece):
    started = time.process_time()
    safe((piece * LONGEST)[:LONGEST])
    assert time.process_time() - started < 5
    assert safe(piece * (LONGEST + 1)).elements == [("p", {"class": "as-is"})]  # longer ones are text


def test_a_project_shows_its_answers_as_text_until_a_lead_says_otherwise(signed_in, filled, fill_more):
    lead = signed_in["lead"]
    texts = ["**bold** <script>alert(1)</script>", "# Big\n\n![x](https://evil.example/p.png) [go](javascript:x)"]
    fill_more("md", "**not** an answer", texts)
    item = lead.next()
    plain = lead.get(f"/t/{item['task']}").text
    assert "**bold** &lt;script&gt;" in plain and "<strong>" not in plain
    settings = {"overlap": "1", "gold_every": "0", "lease_minutes": "5", "instructions": "**as it is**"}
    assert lead.form("/projects/round-1/settings", **settings, answers_as="html").status_code == 422
    assert lead.form("/projects/round-1/settings", **settings, answers_as="markdown").status_code == 303
    page = lead.get(f"/t/{item['task']}").text
    assert "<strong>bold</strong> &lt;script&gt;" in page and '<p class="heading">Big</p>' in page
    assert "**not** an answer" in page and "**as it is**" in page  # prompts and instructions are text
    assert "<script>" not in page and "<img" not in page and "javascript:x" in page and ' href="javascript' not in page
    assert " style=" not in page
    assert lead.get(f"/t/{item['task']}", headers={"accept": "application/json"}).json()["answers"]["A"] in texts
    lead.form("/projects/round-1/settings", **settings)  # a form without the field changes nothing of it
    assert "<strong>bold</strong>" in lead.get(f"/t/{item['task']}").text
    settle = lead.get(f"/projects/round-1/adjudicate/{item['task']}").text
    assert "<strong>bold</strong>" in settle and "<script>" not in settle
