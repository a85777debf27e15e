"""Known vulnerabilities of the installed packages: `python .ci/audit.py PIP_AUDIT [RECORD]`.

Runs pip-audit and records its result with the date. Where it cannot ask (no network, no pip-audit), the recorded result
is told instead. Exit status: 0 none is known, 1 there are some, 2 nothing was asked and nothing is recorded.
"""

import datetime
import json
import subprocess
import sys
from pathlib import Path

SECONDS = 120


def ask(program):
    """What pip-audit found, or None where it found nothing out: it may also answer with every package skipped."""
    words = [program, "--format", "json", "--skip-editable", "--progress-spinner", "off"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        packages = json.loads(done.stdout)["dependencies"]
        found = [
            {"package": f"{one['name']} {one['version']}", "id": vuln["id"], "mended_in": vuln["fix_versions"]}
            for one in packages
            for vuln in one.get("vulns", [])
        ]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None
    asked = sum("vulns" in one for one in packages)
    if not asked:  # each was skipped: the index that was asked knows nothing of vulnerabilities
        return None
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "packages": asked, "vulnerabilities": found}


def read(record):
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return found if {"date", "packages", "vulnerabilities"} <= found.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def main(program, record):
    found = ask(program)
    if found is not None:
        record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(
            f"audit of {found['date']}: {found['packages']} packages, {len(found['vulnerabilities'])} vulnerabilities"
        )
    elif (found := read(record)) is not None:
        count = len(found["vulnerabilities"])
        print(
            f"pip-audit got no answer; its last result, of {found['date']}: {found['packages']} packages, {count} vulnerabilities"
        )
    else:
        print("pip-audit got no answer, and no earlier result is recorded", file=sys.stderr)
        return 2
    for one in found["vulnerabilities"]:
        print(f"  {one['package']}: {one['id']}, mended in {', '.join(one['mended_in']) or 'no version yet'}")
    return 1 if found["vulnerabilities"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name("audit.json"))))
