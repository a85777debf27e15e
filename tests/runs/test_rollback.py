"""What counts as a spike, and which batches are left out after a rollback."""

import pytest

from tutelage.runs.rollback import Rollback, RolledBack, going_on, is_spike, note, position, rollbacks


def test_a_spike_is_measured_in_median_deviations():
    history = [1.0, 1.2] * 10  # median 1.1, median deviation 0.1
    assert is_spike(history, 1.1 + 0.1 * 5.01, 5) and not is_spike(history, 1.1 + 0.1 * 4.99, 5)
    assert not is_spike(history, -50.0, 5)  # a fall is none
    assert not is_spike(history[:9], 50.0, 5)  # too little to compare with
    assert not is_spike([9.0] * 40 + history * 3, 9.0, 1e3)  # only the last 50 count
    assert is_spike([2.0] * 20, 2.1, 5) and not is_spike([2.0] * 20, 2.001, 5)


def test_batches_between_checkpoint_and_break_are_left_out_once(tmp_path):
    done = [Rollback(step=7, to=4, reason="loss is nan"), Rollback(step=9, to=8, reason="loss is nan")]
    assert [position(done, step) for step in (1, 4, 5, 8, 9, 10)] == [0, 3, 7, 10, 12, 13]
    for one in done:
        note(tmp_path, one)
    assert rollbacks(tmp_path) == done


def test_a_run_is_begun_anew_as_often_as_it_rolls_back():
    seen = []

    def run(resumed):
        seen.append(resumed)
        if len(seen) < 3:
            raise RolledBack(5, 4, "loss is nan")
        return {"steps": 9}

    assert going_on(run, False, lambda config: True) == {"steps": 9} and seen == [False, True, True]


def test_other_errors_pass():
    with pytest.raises(ValueError):
        going_on(lambda config: int("x"), None, lambda config: config)
