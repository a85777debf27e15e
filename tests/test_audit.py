"""`make audit` records what pip-audit finds, and tells the last result where it gets no answer."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"
FOUND = {
    "dependencies": [
        {"name": "jinja2", "version": "3.1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}]},
        {"name": "old", "version": "1", "vulns": [{"id": "GHSA-2", "fix_versions": []}]},
        {"name": "numpy", "version": "2.0", "vulns": []},
        {"name": "tutelage", "skip_reason": "distribution marked as editable"},
    ],
    "fixes": [],
}


@pytest.fixture
def audit(tmp_path):
    """Runs the script with a pip-audit that prints this and exits so."""

    def run(prints="", status=0):
        program = tmp_path / "pip-audit"
        program.write_text(f"#!{sys.executable}\nimport sys\nprint({prints!r})\nsys.exit({status})\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        words = [sys.executable, str(SCRIPT), str(program if prints is not None else tmp_path / "absent")]
        return subprocess.run([*words, str(tmp_path / "audit.json")], capture_output=True, text=True)

    run.record = tmp_path / "audit.json"
    return run


def test_vulnerabilities_are_told_recorded_and_told_again_without_a_network(audit):
    first = audit(json.dumps(FOUND), 1)
    assert first.returncode == 1 and "3 packages, 2 vulnerabilities" in first.stdout
    assert "jinja2 3.1.0: PYSEC-1, mended in 3.1.6" in first.stdout
    assert "old 1: GHSA-2, mended in no version yet" in first.stdout
    date = json.loads(audit.record.read_text())["date"]
    kept = audit.record.read_bytes()
    skipped = json.dumps({"dependencies": [{"name": "numpy", "skip_reason": "not found on PyPI"}], "fixes": []})
    for prints, status in (("ConnectionError: name resolution failed", 1), ("", 1), ("[]", 0), (skipped, 0), (None, 0)):
        again = audit(prints, status)
        assert again.returncode == 1 and f"no answer; its last result, of {date}" in again.stdout
        assert "PYSEC-1" in again.stdout and audit.record.read_bytes() == kept
    clean = audit(json.dumps({"dependencies": FOUND["dependencies"][2:]}))
    assert clean.returncode == 0 and "1 packages, 0 vulnerabilities" in clean.stdout
    assert audit(None).returncode == 0


def test_without_an_answer_and_a_record_it_says_so(audit):
    assert audit(None).returncode == 2
    audit.record.write_text("[1")
    done = audit("no network", 1)
    assert done.returncode == 2 and "no earlier result is recorded" in done.stderr
