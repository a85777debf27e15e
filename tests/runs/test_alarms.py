"""Alarms of an on-policy iteration."""

from tutelage.runs.alarms import on_policy_alarms


def test_a_sampler_whose_weights_are_stale_is_named():
    calm = {"sampling/sampling_logp_difference/mean": 0.02, "objective/entropy": 1.0}
    assert on_policy_alarms(calm, 3) == []
    (said,) = on_policy_alarms({**calm, "sampling/sampling_logp_difference/mean": 1.03}, 3)
    assert "1.03 nats" in said and "weights" in said
