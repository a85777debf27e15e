"""Who stands where: the bundles of resources that Ray is asked for, without Ray."""

import os

from tutelage.configs import GroupConfig, PPOConfig, StageConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.errors import UserError

PLACED = (PPOConfig, GroupConfig)
HERE = "local"  # Ray's own word for: start a cluster on this machine, whatever runs on it


def is_placed(config: StageConfig) -> bool:
    """Whether a stage runs on the cluster: those that sample from the policy they train."""
    return isinstance(config, PLACED)


def address(cluster: ClusterConfig) -> str:
    """The Ray cluster to join: the block's, or that of the Ray job this is a part of; else one is started here."""
    return cluster.address or os.environ.get("RAY_ADDRESS") or HERE


def resources(cluster: ClusterConfig, role: str) -> dict[str, float]:
    """What one actor of a role (trainer, scorer or sampler) is given; what is zero is not asked for."""
    asked = {name: getattr(cluster, f"{role}_{name.lower()}s") for name in ("CPU", "GPU")}
    return {name: amount for name, amount in asked.items() if amount}


def roles(cluster: ClusterConfig) -> list[str]:
    """The role of each bundle: the trainers, the scorers, and last the samplers, some of which may have no place kept."""
    return [*["trainer"] * cluster.trainers, *["scorer"] * cluster.scorers, *["sampler"] * cluster.samplers]


def bundles(cluster: ClusterConfig) -> list[dict[str, float]]:
    """Each actor's resources."""
    return [resources(cluster, role) for role in roles(cluster)]


def reserved(cluster: ClusterConfig) -> list[dict[str, float]]:
    """Those of the bundles that must be there before a stage begins: all but those of samplers beyond the least."""
    return bundles(cluster)[: cluster.trainers + cluster.scorers + cluster.sure]


def check_placement(cluster: ClusterConfig, stages: list[tuple[str, str, StageConfig]]) -> None:
    """A UserError for a block that does nothing."""
    if not any(is_placed(config) for _, _, config in stages):
        mend = "take the block out, or add ppo, rloo, grpo or online-dpo"
        raise UserError("no stage samples from the policy it trains", where="cluster", mend=mend)


def shown(cluster: ClusterConfig, stages: list[tuple[str, str, StageConfig]]) -> list[str]:
    """The placement in plain words, for --dry-run."""
    where = address(cluster)
    lines = [f"Ray: {'started on this machine' if where == HERE else where}; {cluster.mode}"]
    lines += ["samplers use vLLM"] if cluster.backend == "vllm" else []
    apart = "1 trainer" if cluster.trainers == 1 else f"{cluster.trainers} trainers"
    apart += ", the scorers and the samplers" if cluster.scorers else " and the samplers"
    for stage, _, config in stages:
        lines.append(f"{stage}: {apart if is_placed(config) else 'this process'}")
    for number, (role, one) in enumerate(zip(roles(cluster), bundles(cluster), strict=True)):
        asked = " + ".join(f"{amount:g} {name}" for name, amount in one.items())
        if role == "trainer":
            seat_of = "" if cluster.trainers == 1 else f" {number + 1}"
            lines.append(f"trainer{seat_of}: {asked}; begun anew at most {cluster.restarts} times")
        else:
            seat = number - roles(cluster).index(role) + 1
            kept = number < len(reserved(cluster))
            lines.append(f"{role} {seat}: {asked}{'' if kept else ', when there is room'}")
    total: dict[str, float] = {}
    for one in bundles(cluster):
        for name, amount in one.items():
            total[name] = total.get(name, 0.0) + amount
    return [*lines, "in all: " + " + ".join(f"{amount:g} {name}" for name, amount in total.items())]
