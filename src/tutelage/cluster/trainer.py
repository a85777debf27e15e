"""A stage in Ray actors, with samplers and scorers; begun anew from its last checkpoint when a trainer dies.

Several trainers are to each other what processes of `torchrun` are.
"""

import contextlib
import os
import socket
import sys
from dataclasses import replace
from typing import Any

from tutelage.cluster.placement import HERE, address, bundles, reserved, resources, roles
from tutelage.configs import GroupConfig, PPOConfig
from tutelage.configs.cluster import ClusterConfig
from tutelage.errors import UserError
from tutelage.processes import one_voice, world_size

PATIENCE = 120.0  # seconds for the cluster to have room
SEEN = 20.0  # seconds in which Ray notices that an actor died


class Trainer:
    """What an actor does: run the stage as it is."""

    def meeting(self) -> tuple[str, int]:
        """Where the others may find this one: the address of its machine, and a port that is free there."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def run(
        self,
        verb: str,
        config: PPOConfig | GroupConfig,
        cluster: ClusterConfig,
        group: Any,
        folder: str,
        seat: int,
        meeting: tuple[str, int],
    ) -> dict[str, Any]:
        """folder: where the command was typed, which the paths of the config start from; seat: of the trainers."""
        import ray

        _join(cluster, seat, meeting)

        from tutelage.cluster import samplers, scorers
        from tutelage.engine import distributed
        from tutelage.models import resolve
        from tutelage.stages.gate import gated_reward_model
        from tutelage.stages.rollout import rollout_params
        from tutelage.verbs import stage_function

        os.chdir(folder)
        model = str(resolve(config.model))

        def sampler(seat: int) -> Any:
            worker = _placed(ray, samplers.Sampler, cluster, group, "sampler", seat)
            there = _device(config.device, cluster.sampler_gpus)
            load = samplers.loader(cluster, model, config.dtype, there, config.max_length, rollout_params(config))
            return worker.remote(load, _threads(cluster.sampler_cpus))

        def scorer(seat: int) -> Any:
            worker = _placed(ray, scorers.Scorer, cluster, group, "scorer", seat)
            device, threads = _device(config.device, cluster.scorer_gpus), _threads(cluster.scorer_cpus)
            return worker.remote(model, str(gated_reward_model(config)), config.dtype, device, threads)

        apart = scorers.Scorers(ray, scorer, cluster, gated_reward_model(config)) if cluster.scorers else None
        with one_voice(), samplers.using(samplers.Pool(ray, sampler, cluster)), scorers.using(apart):
            done = stage_function(verb)(replace(config, device=_device(config.device, cluster.trainer_gpus)))
        distributed.close()
        return done


def _join(cluster: ClusterConfig, seat: int, meeting: tuple[str, int]) -> None:
    """Say in the environment which of several trainers this is, as `torchrun` does."""
    if cluster.trainers > 1:
        found = {"RANK": seat, "WORLD_SIZE": cluster.trainers, "MASTER_ADDR": meeting[0], "MASTER_PORT": meeting[1]}
        os.environ |= {name: str(value) for name, value in found.items()}
        os.environ["LOCAL_RANK"] = "0"  # Ray shows an actor its own GPUs alone


def _placed(ray: Any, kind: type, cluster: ClusterConfig, group: Any, role: str, seat: int) -> Any:
    """An actor's class with its resources, in the bundle of its role and seat.

    One without a bundle in the group waits until the cluster, or what scales it, has room for it.
    """
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = roles(cluster).index(role) + seat
    kept = bundle < len(reserved(cluster))
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle) if kept else "DEFAULT"
    given = resources(cluster, role)
    options = {"num_cpus": given.get("CPU", 0), "num_gpus": given.get("GPU", 0), "scheduling_strategy": place}
    return ray.remote(kind).options(**options)


def _threads(cpus: float) -> int:
    return max(1, int(cpus))


def _device(asked: str, gpus: float) -> str:
    """An actor without GPUs of its own computes on the CPU, even where its machine has one."""
    return asked if gpus else "cpu"


def run_placed(verb: str, config: Any, cluster: ClusterConfig) -> dict[str, Any]:
    """Run one on-policy stage on the cluster; returns its summary."""
    if world_size() > 1:
        mend = "start the recipe without torchrun: Ray starts what it needs"
        raise UserError("a recipe with this block is one process", where="cluster", mend=mend)
    try:
        import ray
    except ImportError as error:
        mend = "pip install 'tutelage[ray]', or take the block out"
        raise UserError("Ray is not installed", where="cluster", mend=mend) from error
    started = not ray.is_initialized()
    if started:
        where = address(cluster)
        # A cluster that runs already has its resources: Ray refuses num_cpus for it, however it was found.
        own: dict[str, Any] = {"num_cpus": _whole(cluster, "CPU"), "include_dashboard": False} if where == HERE else {}
        ray.init(address=where, log_to_driver=True, **own)
    group = _room(ray, cluster)
    try:
        return _begun_anew(ray, group, verb, config, cluster)
    finally:
        ray.util.remove_placement_group(group)
        if started:
            ray.shutdown()


def _whole(cluster: ClusterConfig, name: str) -> int:
    return max(1, round(sum(one.get(name, 0.0) for one in bundles(cluster)) + 0.49))


def _room(ray: Any, cluster: ClusterConfig) -> Any:
    """The resources of all that must be there, together, or a UserError that says what there is."""
    group = ray.util.placement_group(reserved(cluster), strategy="PACK")
    if not group.wait(PATIENCE):
        ray.util.remove_placement_group(group)
        there = {name: amount for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU")}
        what = f"the cluster has no room for {reserved(cluster)}; it has {there}"
        raise UserError(what, where="cluster", mend="ask for less, or wait for more machines")
    return group


def _begun_anew(ray: Any, group: Any, verb: str, config: Any, cluster: ClusterConfig) -> dict[str, Any]:
    for attempt in range(cluster.restarts + 1):
        seats = range(cluster.trainers)
        trainers = [_placed(ray, Trainer, cluster, group, "trainer", seat).remote() for seat in seats]
        try:
            meeting = ray.get(trainers[0].meeting.remote())
            given = (verb, config, cluster, group, os.getcwd())
            return _first(ray, [one.run.remote(*given, seat, meeting) for seat, one in enumerate(trainers)])
        except ray.exceptions.RayActorError:
            for one in trainers:  # those that are left wait for the one that died
                ray.kill(one)
            if attempt == cluster.restarts:
                raise
            print(f"{verb}: the trainer died; it goes on from its last checkpoint", file=sys.stderr)
            config = replace(config, resume=True)
        except ray.exceptions.RayTaskError as error:
            if (mistake := _mistake(error)) is not None:
                raise mistake from None
            raise
    raise AssertionError("a last attempt returns or raises")


def _first(ray: Any, runs: list[Any]) -> dict[str, Any]:
    """What the first trainer returns, once all have. An error of one is raised at once.

    When one dies the others lose their connection to it: that error is the death, wherever it is seen first.
    """
    left = list(runs)
    while left:
        done, left = ray.wait(left, num_returns=1)
        try:
            ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            if _mistake(error) is None:
                for other in left:
                    with contextlib.suppress(ray.exceptions.GetTimeoutError, ray.exceptions.RayTaskError):
                        ray.get(other, timeout=SEEN)
            raise
    return ray.get(runs[0])


def _mistake(error: BaseException) -> UserError | None:
    """The user's mistake that ended a trainer, or a worker of it: Ray wraps an error each time it passes it on."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error if isinstance(error, UserError) else None
