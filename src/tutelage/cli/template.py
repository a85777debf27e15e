"""`tutelage template KIND`: files to start from on a cluster or a server, printed."""

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import yaml
from tyro.conf import Positional

from tutelage import __version__
from tutelage.cli.main import VERBS
from tutelage.cli.options import parse_words
from tutelage.cli.recipes import find_recipe, split_dotted
from tutelage.errors import UserError, did_you_mean
from tutelage.recipe import load_recipe

# Of the compose file's network: a proxy on the machine reaches the published port from the gateway's address.
SUBNET, GATEWAY = "172.30.80.0/24", "172.30.80.1"
SOURCE = "/source"  # where the image has the checkout that it was made of
USER = 1000  # number of the image's user, who owns what a job writes
Kind = Literal["slurm", "rayjob", "dockerfile", "compose", "systemd"]


@dataclass(kw_only=True, frozen=True)
class TemplateOptions:
    """Print a file to start from: a Slurm job, a KubeRay RayJob, an image, a compose file or a systemd unit."""

    kind: Positional[Kind]
    """slurm and rayjob run --command on a cluster; compose and systemd serve the feedback pages with PostgreSQL."""
    command: str | None = None
    """What `tutelage` is told to do on the cluster; the recipe instructgpt (slurm) or cluster (rayjob) when not given."""
    name: str = "tutelage"
    """The job's or service's name."""
    nodes: int = 1
    """Machines."""
    processes: int = 8
    """Processes on each machine: one for each GPU, or each socket of processors."""
    gpus: int = 0
    """GPUs on each machine: one process of slurm on each, one sampler of rayjob on each and its trainer on one more."""
    scorers: int = 0
    """Samplers of rayjob that hold the frozen models and score instead; 0: its trainer does that too."""
    hours: int = 24
    """Longest time, in hours."""
    folder: str = "/srv/tutelage"
    """The folder of the project: on a cluster one that every machine sees."""
    image: str = f"tutelage:{__version__}"
    """The container's image: rayjob and compose."""

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("processes", 1), ("hours", 1), ("gpus", 0), ("scorers", 0)):
            if getattr(self, name) < least:
                what = f"{getattr(self, name)} cannot be used"
                raise UserError(what, where=f"option --{name}", mend=f"give {least} or more")
        places = self.nodes * (self.gpus or self.processes)
        if self.scorers >= places:
            what = f"of {places} places for workers {self.scorers} leave none to sample"
            raise UserError(what, where="option --scorers", mend=f"give at most {places - 1}, or more --nodes")
        if not PurePosixPath(self.folder).is_absolute():
            raise UserError(f"{self.folder!r} is not absolute", where="option --folder", mend="begin it with /")
        if self.command is not None:
            self._check(shlex.split(self.command))

    def _check(self, words: list[str]) -> None:
        verb = (words or [""])[0]
        if verb not in VERBS:
            what = f"tutelage has no verb {verb!r}{did_you_mean(verb, list(VERBS))}"
            raise UserError(what, where="option --command", mend="write it as after `tutelage`: 'sft --out runs/sft'")
        if self.kind != "rayjob":
            return
        placed = verb == "run" and len(words) > 1
        path = find_recipe(words[1]) if placed else None
        if path is not None and path.exists():  # one that is in the image or the volume alone cannot be looked at
            placed = load_recipe(path, stage_options=split_dotted(words[1:])[0]).cluster is not None
        if not placed:
            what, mend = f"{self.command!r} gives the workers nothing to do", "run a recipe that has a `cluster:` block"
            raise UserError(what, where="option --command", mend=mend)


def main(verb: str, arguments: list[str]) -> None:
    options = parse_words(TemplateOptions, verb, arguments)
    makers = {"slurm": slurm, "rayjob": rayjob, "dockerfile": dockerfile, "compose": compose, "systemd": systemd}
    print(makers[options.kind](options), end="")


class _Plain(yaml.SafeDumper):
    """YAML without anchors: each part is written where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(content: dict[str, Any]) -> str:
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, width=120)


def slurm(options: TemplateOptions) -> str:
    """One torchrun on each node. SIGTERM two minutes before the end leaves a checkpoint, and the job is queued again."""
    gpus = f"#SBATCH --gpus-per-node={options.gpus}\n" if options.gpus else ""
    command = options.command or "run recipes/instructgpt.yaml --out runs/instructgpt --resume"
    return f"""#!/bin/bash
#SBATCH --job-name={options.name}
#SBATCH --nodes={options.nodes}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --time={options.hours}:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={options.name}-%j.log
set -euo pipefail
cd {shlex.quote(options.folder)}

MAIN_NODE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$(( (SLURM_CPUS_ON_NODE + {options.processes} - 1) / {options.processes} ))

srun --kill-on-bad-exit=1 .venv/bin/torchrun \\
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node {options.processes} --max-restarts 0 \\
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$MAIN_NODE:29500" \\
  -m tutelage {command} || status=$?
if [ "${{status:-0}}" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 3 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "${{status:-0}}"
"""


def placed_command(options: TemplateOptions) -> str:
    """The recipe with a `cluster:` block on all pods: the trainer has one whole, samplers and scorers a core each of the
    others, or a GPU each with its share of the cores.

    Paths are whole: where a job's command starts is Ray's business.
    """
    out = f"{options.folder.rstrip('/')}/runs/cluster"
    samplers = options.nodes * (options.gpus or options.processes) - options.scorers
    block = f"--cluster.trainer-cpus {options.processes} --cluster.samplers {samplers}"
    block += f" --cluster.scorers {options.scorers}" if options.scorers else ""
    if options.gpus:
        block += " --cluster.trainer-gpus 1"
        for role in ("sampler", "scorer") if options.scorers else ("sampler",):
            block += f" --cluster.{role}-gpus 1 --cluster.{role}-cpus {options.processes / options.gpus:g}"
    return f"run {SOURCE}/recipes/cluster.yaml --out {shlex.quote(out)} --resume {block}"


def rayjob(options: TemplateOptions) -> str:
    """A KubeRay RayJob: a head, and workers of one kind that see one volume."""
    mounts = [{"name": "runs", "mountPath": options.folder}]
    volumes = [{"name": "runs", "persistentVolumeClaim": {"claimName": f"{options.name}-runs"}}]

    def pod(role: str, gpus: int) -> dict[str, Any]:
        limits: dict[str, Any] = {"cpu": options.processes, "memory": f"{8 * options.processes}Gi"}
        if gpus:
            limits["nvidia.com/gpu"] = gpus
        container = {
            "name": f"ray-{role}",
            "image": options.image,
            "workingDir": options.folder,
            "resources": {"requests": limits, "limits": limits},
            "volumeMounts": mounts,
        }
        # The volume belongs to the image's user; one that is not of the pod's own making must be writable by it.
        return {"spec": {"securityContext": {"fsGroup": USER}, "containers": [container], "volumes": volumes}}

    cluster = {
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"},
            "template": pod("head", min(1, options.gpus)),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": options.nodes,
                "minReplicas": 1,
                "maxReplicas": options.nodes,
                "rayStartParams": {},
                "template": pod("worker", options.gpus),
            }
        ],
    }
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": options.name},
        "spec": {
            "entrypoint": f"tutelage {options.command or placed_command(options)}",
            "shutdownAfterJobFinishes": True,
            "activeDeadlineSeconds": 3600 * options.hours,
            "backoffLimit": 3,
            "rayClusterSpec": cluster,
        },
    }
    return _yaml(job)


def dockerfile(options: TemplateOptions) -> str:
    """An image of a checkout of the source, for the pages and for RayJobs.

    A RayJob is submitted to Ray's dashboard, which ray[default] has; KubeRay asks its pods with wget whether they live.
    """
    return f"""FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
COPY . {SOURCE}
RUN pip install --no-cache-dir '{SOURCE}[postgresql,ray]' 'ray[default]' \\
  && useradd --create-home --uid {USER} tutelage \\
  && mkdir --parents {options.folder}/runs && chown --recursive tutelage {options.folder}
USER tutelage
WORKDIR {options.folder}
ENTRYPOINT ["tutelage"]
"""


def compose(options: TemplateOptions) -> str:
    """The pages and PostgreSQL, whose password stands in a file beside it that is not in version control."""
    store = "postgresql://tutelage@database/tutelage"
    services = {
        "database": {
            "image": "postgres:16",
            "restart": "unless-stopped",
            "environment": {
                "POSTGRES_USER": "tutelage",
                "POSTGRES_DB": "tutelage",
                "POSTGRES_PASSWORD_FILE": "/run/secrets/password",
            },
            "secrets": ["password"],
            "volumes": ["database:/var/lib/postgresql/data"],
            "healthcheck": {
                "test": ["CMD", "pg_isready", "--username", "tutelage"],
                "interval": "5s",
                "timeout": "3s",
                "retries": 12,
            },
        },
        "pages": {
            "image": options.image,
            "build": ".",
            "restart": "unless-stopped",
            "depends_on": {"database": {"condition": "service_healthy"}},
            "environment": {"PGPASSFILE": "/run/secrets/pgpass"},
            "secrets": [{"source": "pgpass", "mode": 0o400}],
            "command": [
                *("feedback", "serve", "--store", store, "--host", "0.0.0.0", "--port", "8000"),
                *("--trusted-proxy", GATEWAY),
            ],
            "ports": ["127.0.0.1:8000:8000"],
            "volumes": [f"runs:{options.folder.rstrip('/')}/runs"],  # rounds go on after the container is made anew
        },
    }
    content = {
        "name": options.name,
        "services": services,
        "networks": {"default": {"ipam": {"config": [{"subnet": SUBNET, "gateway": GATEWAY}]}}},
        "secrets": {"password": {"file": "./password"}, "pgpass": {"file": "./pgpass"}},
        "volumes": {"database": {}, "runs": {}},
    }
    return _yaml(content)


def systemd(options: TemplateOptions) -> str:
    """The pages as a service of a machine whose PostgreSQL lets the service's user in by its name."""
    folder = options.folder.rstrip("/")
    return f"""[Unit]
Description=Feedback pages of {options.name}
After=network-online.target postgresql.service
Wants=network-online.target

[Service]
User={options.name}
WorkingDirectory={folder}
ExecStart={folder}/.venv/bin/tutelage feedback serve --store postgresql://{options.name}@/{options.name} --host 127.0.0.1 --port 8000 --trusted-proxy 127.0.0.1
Restart=on-failure
RestartSec=2
TimeoutStopSec=30
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ReadWritePaths={folder}

[Install]
WantedBy=multi-user.target
"""
