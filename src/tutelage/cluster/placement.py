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


def bundles(cluster: ClusterConfig) -> list[dict[str, float]]:
    """The trainer's resources, then each sampler's."""
    trainer = {"CPU": cluster.trainer_cpus, "GPU": cluster.trainer_gpus}
    sampler = {"CPU": cluster.sampler_cpus, "GPU": cluster.sampler_gpus}
    return [
        {name: amount for name, amount in one.items() if amount} for one in [trainer, *[sampler] * cluster.samplers]
    ]


def reserved(cluster: ClusterConfig) -> list[dict[str, float]]:
    """Those of the bundles that must be there before a stage begins: the trainer's, and the least samplers'."""
    return bundles(cluster)[: 1 + cluster.sure]


def check_placement(cluster: ClusterConfig, stages: list[tuple[str, str, StageConfig]]) -> None:
    """A UserError for a block that does nothing, or asks for what a stage cannot do."""
    placed = [(stage, config) for stage, _, config in stages if is_placed(config)]
    if not placed:
        mend = "take the block out, or add ppo, rloo, grpo or online-dpo"
        raise UserError("no stage samples from the policy it trains", where="cluster", mend=mend)
    if cluster.mode == "one-step-off":
        for stage, config in placed:
            if not isinstance(config, PPOConfig):
                what = f"{stage} has no importance weights, which answers of older weights need"
                raise UserError(what, where="cluster, key mode", mend="write mode: synchronous")


def shown(cluster: ClusterConfig, stages: list[tuple[str, str, StageConfig]]) -> list[str]:
    """The placement in plain words, for --dry-run."""
    trainer, *samplers = (" + ".join(f"{amount:g} {name}" for name, amount in one.items()) for one in bundles(cluster))
    where = address(cluster)
    lines = [f"Ray: {'started on this machine' if where == HERE else where}; {cluster.mode}"]
    for stage, _, config in stages:
        where = "1 trainer and the samplers" if is_placed(config) else "this process"
        lines.append(f"{stage}: {where}")
    lines.append(f"trainer: {trainer}; begun anew at most {cluster.restarts} times")
    for number, resources in enumerate(samplers, 1):
        lines.append(f"sampler {number}: {resources}{'' if number <= cluster.sure else ', when there is room'}")
    total: dict[str, float] = {}
    for one in bundles(cluster):
        for name, amount in one.items():
            total[name] = total.get(name, 0.0) + amount
    return [*lines, "in all: " + " + ".join(f"{amount:g} {name}" for name, amount in total.items())]
