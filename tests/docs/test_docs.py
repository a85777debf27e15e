"""The pages cannot drift from the code: examples are read, commands parse, generated pages are current."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tutelage.cli.main import VERBS
from tutelage.cli.options import option, parse
from tutelage.cli.recipes import find_recipe, split_dotted
from tutelage.configs import STAGES
from tutelage.data.rows import FORMATS, format_of, items_of
from tutelage.recipe import load_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples():
    for section in (ROOT / "docs" / "data.md").read_text().split("\n### ")[1:]:
        name, _, rest = section.partition("\n")
        yield from ((name, line) for line in rest.split("```json\n")[1].split("```")[0].strip().splitlines())


def test_every_accepted_format_is_on_the_page_with_a_row_that_is_read():
    assert {name for name, _ in examples()} == {*FORMATS, "hh-rlhf"}
    for name, line in examples():
        row = json.loads(line)
        assert format_of(row) == name and items_of(row, name)


def commands():
    """`tutelage …` lines of code blocks: indented, or fenced without a language."""
    for page in PAGES:
        if page.name in ("command-line.md", "configuration.md"):
            continue
        for line in re.sub(r"\\\n\s*", "", page.read_text()).splitlines():
            words = re.match(r"^    (?:\.venv/bin/)?tutelage (.+?)(?:\s+#.*)?$", line)
            if words:
                yield pytest.param(shlex.split(words[1].split(" && ")[0]), id=f"{page.stem}: {words[1]}")


@pytest.mark.parametrize("words", list(commands()))
def test_a_printed_command_parses(words, capsys):
    verb, rest = words[0], words[1:]
    assert verb in VERBS
    if verb in STAGES:
        parse(STAGES[verb], verb, rest)
        return
    if verb == "run":
        dotted, rest = split_dotted(rest)
        load_recipe(find_recipe(rest[0]), stage_options=dotted)
    action = [word for word in rest[:1] if verb in ("data", "world", "feedback")]
    with pytest.raises(SystemExit) as left:
        import_module(VERBS[verb][0]).main(verb, [*action, "--help"])
    shown = capsys.readouterr().out
    assert left.value.code in (0, None)
    for word in rest:
        if word.startswith("--"):
            assert f"--{option(word[2:].partition('=')[0])}" in shown, word


def test_the_generated_pages_are_current():
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_trees_are_those_on_the_disk():
    page = (ROOT / "docs" / "architecture.md").read_text()
    whole, data = re.findall(r"```text\n(.*?)```", page, re.DOTALL)[:2]
    for block, folder in ((whole, "src/tutelage"), (data, "src/tutelage/data")):
        lines = block.splitlines()
        named = {line.split()[0].rstrip("/") for line in lines[1:] if line.startswith("  ")}
        here = {p.name for p in (ROOT / folder).iterdir() if not p.name.startswith(("__", "py.typed"))}
        assert named == here, named ^ here
        assert all((ROOT / line.split()[0]).exists() for line in lines if not line.startswith(" "))
    table = set(re.findall(r"\| `src/tutelage/(\w+)/`", (ROOT / "README.md").read_text()))
    assert table == {p.name for p in (ROOT / "src/tutelage").iterdir() if p.is_dir() and p.name != "__pycache__"}


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_the_site_builds_strictly_and_offline(tmp_path):
    pytest.importorskip("material", reason="the site's generator is not installed: pip install -e '.[docs]'")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
        assert not fetched, (page, fetched)
