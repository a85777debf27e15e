"""A run whose numbers break goes back to its checkpoint and past the batch: bounded, and logged."""

import json

import pytest

from tutelage.configs import SFTConfig
from tutelage.runs.rollback import rollbacks
from tutelage.stages import sft
from tutelage.verbs import stage_function


def config(nano, out, **changes):
    values = {"max_steps": 6, "batch_size": 4, "save_every": 2, "demonstrations": 60, "dtype": "float32", "seed": 1}
    return SFTConfig(model=str(nano), out=str(out), max_length=96, **{**values, **changes})


@pytest.fixture
def poisoned(monkeypatch):
    """SFT in which given batches have no finite loss."""
    places, loss = [], sft.backward_mean_nll

    def poison(*bad):
        from tutelage.stages.session import Session

        place_of = Session.position

        def position(self, step):
            places.append(place_of(self, step))
            return places[-1]

        def broken(*arguments, **options):
            row = loss(*arguments, **options)
            return {**row, "loss": float("nan")} if places[-1] in bad else row

        monkeypatch.setattr(Session, "position", position)
        monkeypatch.setattr(sft, "backward_mean_nll", broken)
        return places

    return poison


def test_the_batch_that_broke_it_is_left_out(nano, tmp_path, poisoned, capsys):
    places = poisoned(4)  # the fifth step, after the checkpoint of the fourth
    done = stage_function("sft")(config(nano, tmp_path / "run"))
    assert places == [0, 1, 2, 3, 4, 5, 6]  # step 5 is done again with the next batch
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and done["steps"] == 6
    (one,) = rollbacks(tmp_path / "run")
    assert (one.step, one.to, one.reason) == (5, 4, "loss is nan")
    assert "back to step 4" in capsys.readouterr().err


def test_rollbacks_are_bounded(nano, tmp_path, poisoned):
    poisoned(2, 3, 4, 5, 6)
    with pytest.raises(FloatingPointError, match="loss is nan"):
        stage_function("sft")(config(nano, tmp_path / "run", rollbacks=2))
    assert len(rollbacks(tmp_path / "run")) == 2
    assert "loss is nan" in json.loads((tmp_path / "run/failed.json").read_text())["reason"]
    poisoned()
    assert stage_function("sft")(config(nano, tmp_path / "run", rollbacks=2, resume=True))["steps"] == 6
    assert not (tmp_path / "run/failed.json").exists()


def test_without_a_checkpoint_it_stops_and_names_the_number(nano, tmp_path, poisoned):
    poisoned(0)
    with pytest.raises(FloatingPointError, match="sft, step 1: loss is nan"):
        stage_function("sft")(config(nano, tmp_path / "run"))
    assert not rollbacks(tmp_path / "run")
