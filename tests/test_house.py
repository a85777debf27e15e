"""Budgets of size, and imports that follow the house's order."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "tutelage"
FILES = sorted(SOURCE.rglob("*.py"))
# package -> packages of ours that it may import
MAY_IMPORT = {
    "algorithms": set(),
    "configs": {"errors"},
    "constitutions": {"errors", "records"},
    "cluster": {"errors", "configs", "engine", "models", "processes", "records", "stages", "verbs"},
    "runs": {"errors", "records"},
    "data": {"errors", "processes", "records", "runs", "solutions", "world"},
    "world": {"constitutions", "errors", "records", "solutions", "configs", "models", "engine", "stages"},
    "engine": {"errors", "processes"},
    "models": {"data", "errors", "engine", "processes", "runs", "world"},
    "evaluation": {"errors", "records", "algorithms", "world"},
    "judges": {"algorithms", "constitutions", "errors", "records", "data", "engine", "models", "runs"},
    "serving": {"errors", "records", "data", "engine", "models", "runs"},
    "planning": {"errors", "configs", "data", "engine", "models"},
    "report": {"errors", "records", "runs", "evaluation"},
    "feedback": {"errors", "records", "configs", "data", "runs"},
    "web": {"errors", "records", "data", "feedback", "report", "studies", "workbench"},
    "workbench": {
        "errors",
        "records",
        "configs",
        "data",
        "engine",
        "evaluation",
        "judges",
        "models",
        "runs",
        "stages",
        "studies",
        "world",
    },
    "studies": {
        "errors",
        "algorithms",
        "records",
        "configs",
        "evaluation",
        "models",
        "recipe",
        "report",
        "runs",
        "stages",
        "world",
    },
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tutelage."):
            yield node.module.split(".")[1]


def test_sizes():
    for path in FILES:
        assert path.read_text().count("\n") <= 500, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 80, (path, node.name)


def test_sizes_of_scripts():
    scripts = sorted((SOURCE / "web" / "static").glob("*.js"))
    assert len(scripts) > 15
    for path in scripts:
        assert path.read_text().count("\n") <= 300, path


def test_imports_follow_the_order():
    for path in FILES:
        package = path.relative_to(SOURCE).parts[0]
        if package in MAY_IMPORT:
            assert set(imports(path)) <= MAY_IMPORT[package] | {package}, path


def test_training_never_imports_the_judge():
    training = [
        SOURCE / "stages" / f"{name}.py"
        for name in (
            "sft",
            "reward",
            "ppo",
            "rollout",
            "preference",
            "preference_losses",
            "reference",
            "group_policy",
            "rejection",
            "on_policy",
            "sample",
            "label",
            "pretrain",
            "session",
            "loading",
            "language_modeling",
            "cai",
            "cai_label",
            "prm",
            "step_label",
            "step_scores",
        )
    ]
    for path in [
        *training,
        *(SOURCE / "engine").glob("*.py"),
        *(SOURCE / "data").glob("*.py"),
        SOURCE / "world" / "corpus.py",
    ]:
        assert "gold" not in path.read_text().replace("never the gold judge", ""), path
