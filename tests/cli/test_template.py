"""The files that `tutelage template` prints are valid, and those on the pages are what it prints."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tutelage.cli import template
from tutelage.cli.template import TemplateOptions
from tutelage.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


def printed(words: list[str], capsys) -> str:
    template.main("template", words)
    return capsys.readouterr().out


def test_a_slurm_job_is_a_sound_script_that_starts_one_torchrun_a_node(tmp_path, capsys):
    script = printed(["slurm", "--nodes", "4", "--processes", "2", "--gpus", "2", "--hours", "6"], capsys)
    (tmp_path / "job").write_text(script)
    assert subprocess.run(["bash", "-n", tmp_path / "job"], capture_output=True).returncode == 0
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.M))
    assert directives["nodes"] == "4" and directives["ntasks-per-node"] == "1" and directives["time"] == "6:00:00"
    assert directives["gpus-per-node"] == "2" and "signal" in directives and "requeue" in directives


def test_a_slurm_job_runs_the_command_and_asks_for_another_turn(tmp_path):
    """With stand-ins for Slurm's programs: the words that reach torchrun, and what happens when it fails."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    programs = {
        "srun": 'shift; exec "$@"',
        "scontrol": 'echo "scontrol $*" >> calls; [ "$1" = show ] && echo node7 || true',
        ".venv/bin/torchrun": 'echo "torchrun $*" >> calls; exit 3',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    options = TemplateOptions(kind="slurm", command="sft --out runs/sft", folder=str(tmp_path), nodes=2, processes=4)
    (tmp_path / "job").write_text(template.slurm(options))
    names = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_ON_NODE": "16", "SLURM_JOB_NUM_NODES": "2"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "42", **names}
    done = subprocess.run(["bash", tmp_path / "job"], env=environment, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == 3, done.stderr
    assert "--nnodes 2 --nproc-per-node 4" in calls and "--rdzv-endpoint node7:29500" in calls
    assert calls.splitlines()[1].endswith("-m tutelage sft --out runs/sft")
    assert "scontrol requeue 42" in calls


def test_a_rayjob_has_what_the_operator_asks_for(capsys):
    job = yaml.safe_load(printed(["rayjob", "--nodes", "3", "--gpus", "8"], capsys))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", job["metadata"]["name"])
    assert job["spec"]["entrypoint"].startswith("tutelage run ")
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] == workers["maxReplicas"] == 3
    for group in (cluster["headGroupSpec"], workers):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert container["image"] and {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8


def test_a_compose_file_has_its_parts_defined_and_waits_for_the_database(capsys):
    content = yaml.safe_load(printed(["compose"], capsys))
    services = content["services"]
    for service in services.values():
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in content["secrets"]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in content["volumes"]
        for other, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == "service_healthy" and "healthcheck" in services[other]
    from tutelage.cli.feedback import ServeOptions
    from tutelage.cli.options import parse_words

    group, action, *words = services["pages"]["command"]
    assert (group, action) == ("feedback", "serve")
    parsed = parse_words(ServeOptions, "feedback serve", words)
    assert parsed.store == "postgresql://tutelage@database/tutelage" and parsed.host == "0.0.0.0"
    assert "POSTGRES_PASSWORD" not in services["database"]["environment"]  # no password in the file


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_a_unit_is_verified_by_systemd(tmp_path):
    program = tmp_path / ".venv/bin/tutelage"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "pages.service"
    unit.write_text(template.systemd(TemplateOptions(kind="systemd", name="root", folder=str(tmp_path))))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert done.returncode == 0 and str(unit.name) not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "options", [{"nodes": 0}, {"command": "sfft --out x"}, {"folder": "here"}, {"command": ""}], ids=str
)
def test_what_cannot_work_is_refused(options):
    with pytest.raises(UserError):
        TemplateOptions(kind="slurm", **options)


def test_the_pages_show_what_the_command_prints(capsys):
    shown = 0
    for page in ("scale.md", "deploy.md"):
        blocks = re.findall(
            r"^    tutelage (template [^\n]+?) > [^\n]+\n\n```\w+\n(.*?)```", (DOCS / page).read_text(), re.M | re.S
        )
        for command, block in blocks:
            assert printed(shlex.split(command)[1:], capsys) == block, command
            shown += 1
    assert shown == 5
