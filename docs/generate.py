"""Write the pages that are made of the code: `python docs/generate.py` (with --check: fail where one is not current)."""

import ast
import contextlib
import dataclasses
import io
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))
os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}

from tutelage.cli.main import VERBS, usage  # noqa: E402
from tutelage.configs import STAGES  # noqa: E402
from tutelage.configs.base import StageConfig, TrainingConfig  # noqa: E402
from tutelage.runs.metrics import PAGE, markdown_table  # noqa: E402

MADE = "<!-- made by docs/generate.py; edit the code, not this page -->"


def field_docs(cls):
    """Each field's docstring: the string that stands behind it, in this class or the nearest base that has one."""
    found = {}
    for base in reversed(cls.__mro__):
        if not hasattr(base, "__dataclass_fields__"):
            continue
        path = Path(sys.modules[base.__module__].__file__)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == base.__name__)
        for node, after in zip(body, [*body[1:], None], strict=True):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[node.target.id] = " ".join(str(after.value.value).split())
    return found


def fields_of(cls):
    """The options of a class by name."""
    return {one.name: one for one in dataclasses.fields(cls)}


def option_table(cls, names):
    """A Markdown table of options: name, type, default, what it does."""
    docs = field_docs(cls)
    lines = ["| option | type | default | |", "|---|---|---|---|"]
    for name in names:
        spec = fields_of(cls)[name]
        kind = spec.type if isinstance(spec.type, str) else getattr(spec.type, "__name__", str(spec.type))
        kind = re.sub(r"typing\.", "", str(spec.type) if kind in ("Literal", "Union", "Optional") else kind)
        kind = kind.replace("|", "\\|")
        text = docs.get(name, "").replace("|", "\\|")
        lines.append(f"| `{name}` | `{kind}` | `{spec.default!r}` | {text} |")
    return lines


def configuration():
    """Every option of every stage, with its default."""
    lines = [
        "# Configuration reference",
        MADE,
        "",
        "An option is a key of a stage in a recipe (`learning_rate: 1.0e-5`), a key of a file given with `--config`, "
        "or an option of the verb (`--learning-rate 1e-5`). What is given later in this list overrides what comes "
        "before. In a recipe, any option of any stage is set from the command line by `--STAGE.OPTION VALUE`. "
        "Defaults are the paper's where the paper has a number.",
        "",
        "## Every stage",
        "",
        *option_table(StageConfig, fields_of(StageConfig)),
        "",
        "## Every stage that trains",
        "",
        *option_table(
            TrainingConfig,
            [n for n in fields_of(TrainingConfig) if n not in fields_of(StageConfig)],
        ),
    ]
    for verb, cls in STAGES.items():
        base = TrainingConfig if issubclass(cls, TrainingConfig) else StageConfig
        fields = fields_of(cls)
        own = [n for n in fields if n not in fields_of(base) or fields[n].default != fields_of(base)[n].default]
        lines += ["", f"## {verb}", "", " ".join((cls.__doc__ or "").split()), "", *option_table(cls, own)]
    return "\n".join(lines) + "\n"


def help_of(*words):
    """What `tutelage WORDS --help` prints."""
    from importlib import import_module

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        import_module(VERBS[words[0]][0]).main(words[0], [*words[1:], "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def actions_of(text):
    """The actions that a verb's help lists."""
    return re.findall(r"^  ([a-z][\w-]*) +\S", text, re.MULTILINE) if "ACTION" in text.split("\n", 1)[0] else []


def command_line():
    """Every verb's help."""
    lines = [
        "# Command line reference",
        MADE,
        "",
        "Exit status: 0 done; 2 bad input or configuration, with one message that names the file, row or option and "
        "what to change; 1 a failure of ours; 130 stopped by Ctrl-C, with the command that goes on. `--json` prints "
        "one JSON object last.",
        "",
        "```text",
        usage(),
        "```",
    ]
    for verb in VERBS:
        text = help_of(verb)
        lines += ["", f"## {verb}", "", "```text", text, "```"]
        for action in actions_of(text):
            lines += ["", f"### {verb} {action}", "", "```text", help_of(verb, action), "```"]
    return "\n".join(lines) + "\n"


def metrics():
    """Every number that a training run logs."""
    return PAGE + markdown_table() + "\n"


PAGES = {"docs/configuration.md": configuration, "docs/command-line.md": command_line, "docs/metrics.md": metrics}


def main():
    stale = []
    for name, make in PAGES.items():
        path, text = ROOT / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"not current: {', '.join(stale)}; run python docs/generate.py")


if __name__ == "__main__":
    main()
