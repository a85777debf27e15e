"""The files that `tutelage template` prints are valid, and those on the pages are what it prints."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tutelage.cli import recipes, template
from tutelage.cli.template import TemplateOptions
from tutelage.cluster.placement import bundles
from tutelage.errors import UserError
from tutelage.recipe import load_recipe

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


# Of KubeRay's v1 API (ray-operator/apis/ray/v1): the keys of a RayJob's spec and of the parts of its cluster, with types.
RAYJOB = {
    **{"activeDeadlineSeconds": int, "backoffLimit": int, "clusterSelector": dict, "entrypoint": str},
    **{"entrypointNumCpus": float, "entrypointNumGpus": float, "entrypointResources": str, "jobId": str},
    **{"managedBy": str, "metadata": dict, "rayClusterSpec": dict, "runtimeEnvYAML": str, "submissionMode": str},
    **{"shutdownAfterJobFinishes": bool, "submitterPodTemplate": dict, "suspend": bool, "ttlSecondsAfterFinished": int},
}
CLUSTER = {"headGroupSpec": dict, "workerGroupSpecs": list, "rayVersion": str, "enableInTreeAutoscaling": bool}
HEAD = {"rayStartParams": dict, "template": dict, "serviceType": str, "enableIngress": bool}
WORKERS = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "numOfHosts": int}
WORKERS |= {"rayStartParams": dict, "template": dict, "scaleStrategy": dict}


def conforms(part: dict, schema: dict, needed: set) -> None:
    assert needed <= part.keys() <= schema.keys()
    assert all(type(value) is schema[key] for key, value in part.items())


def test_a_rayjob_has_the_fields_of_kuberays_crd(capsys):
    job = yaml.safe_load(printed(["rayjob", "--nodes", "3", "--gpus", "8"], capsys))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob") and set(job) == {
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    }
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", job["metadata"]["name"])
    conforms(job["spec"], RAYJOB, {"entrypoint", "rayClusterSpec"})
    cluster = job["spec"]["rayClusterSpec"]
    conforms(cluster, CLUSTER, {"headGroupSpec", "workerGroupSpecs"})
    (workers,) = cluster["workerGroupSpecs"]
    conforms(cluster["headGroupSpec"], HEAD, {"template"})
    conforms(workers, WORKERS, {"groupName", "template", "maxReplicas"})
    assert workers["minReplicas"] <= workers["replicas"] == workers["maxReplicas"] == 3
    for group in (cluster["headGroupSpec"], workers):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert container["image"] and {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 8


def packed(wanted: list[dict], pods: list[dict]) -> bool:
    """Whether each bundle finds a pod with room, the largest first, as Ray packs them."""
    for bundle in sorted(wanted, key=lambda one: -one["CPU"]):
        pod = next((pod for pod in pods if all(pod.get(kind, 0) >= n for kind, n in bundle.items())), None)
        if pod is None:
            return False
        for kind, amount in bundle.items():
            pod[kind] -= amount
    return True


@pytest.mark.parametrize(
    "nodes, processes, gpus, scorers",
    [
        *((1, 8, 0, 0), (4, 8, 0, 0), (3, 1, 0, 0), (2, 64, 0, 0), (2, 16, 8, 0), (3, 4, 1, 0), (1, 4, 8, 0)),
        *((2, 8, 0, 3), (2, 16, 8, 5)),
    ],
)
def test_a_rayjobs_recipe_fills_its_pods_and_no_more(nodes, processes, gpus, scorers, capsys):
    words = ["rayjob", "--nodes", str(nodes), "--processes", str(processes), "--folder", "/a folder"]
    words += ["--gpus", str(gpus)] if gpus else []
    words += ["--scorers", str(scorers)] if scorers else []
    job = yaml.safe_load(printed(words, capsys))
    program, verb, *rest = shlex.split(job["spec"]["entrypoint"])
    assert (program, verb) == ("tutelage", "run") and rest[rest.index("--out") + 1] == "/a folder/runs/cluster"
    rest[0] = rest[0].replace(template.SOURCE, str(DOCS.parent))  # where the image has this checkout
    recipes.main(verb, [*rest, "--dry-run"])
    shown = capsys.readouterr().out
    assert f"# ppo: 1 trainer{', the scorers' if scorers else ''} and the samplers" in shown
    dotted, _ = recipes.split_dotted(rest)
    block = load_recipe(Path(rest[0]), stage_options=dotted).cluster
    assert block.scorers == scorers
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    groups = [cluster["headGroupSpec"], *[workers] * workers["replicas"]]
    limits = [group["template"]["spec"]["containers"][0]["resources"]["limits"] for group in groups]
    pods = [{"CPU": one["cpu"], "GPU": one.get("nvidia.com/gpu", 0)} for one in limits]
    assert packed(bundles(block), pods) and all(pod == {"CPU": 0, "GPU": 0} for pod in pods)


def test_the_shipped_block_fits_the_job_of_the_defaults():
    block = load_recipe(DOCS.parent / "recipes/cluster.yaml").cluster
    assert packed(bundles(block), [{"CPU": TemplateOptions.processes} for _ in range(1 + TemplateOptions.nodes)])


@pytest.mark.parametrize("command", ["sft --out runs/sft", "run", f"run {DOCS.parent}/recipes/quickstart.yaml"])
def test_a_rayjob_whose_workers_would_idle_is_refused(command):
    with pytest.raises(UserError, match="nothing to do"):
        TemplateOptions(kind="rayjob", command=command)
    TemplateOptions(kind="rayjob", command=f"run {DOCS.parent}/recipes/quickstart.yaml --cluster.samplers 4")
    TemplateOptions(kind="rayjob", command="run recipes/of-the-volume.yaml")


def test_the_image_has_what_its_jobs_and_pages_need(capsys):
    """The extras by their names in pyproject.toml; ray[default] and wget are KubeRay's wishes (see `dockerfile`)."""
    image = printed(["dockerfile"], capsys)
    (extras,) = re.findall(r"'/source\[([\w,]+)\]'", image)
    known = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"ray", "postgresql"} == set(extras.split(",")) <= known.keys()
    assert "'ray[default]'" in image and " wget " in image


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
    # Rounds write below the folder that the image starts in, where its user may write, and outlive the container.
    image = printed(["dockerfile"], capsys)
    folder = re.search("^WORKDIR (.+)$", image, re.MULTILINE)[1]
    assert services["pages"]["volumes"] == [f"runs:{folder}/runs"]
    assert image.index(f"mkdir --parents {folder}/runs && chown --recursive tutelage {folder}") < image.index("USER ")


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
    "options",
    [{"nodes": 0}, {"command": "sfft --out x"}, {"folder": "here"}, {"command": ""}, {"processes": 4, "scorers": 4}],
    ids=str,
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
