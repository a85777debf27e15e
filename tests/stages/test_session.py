"""What every training loop shares."""

import json
import time

from tutelage.configs import SFTConfig
from tutelage.stages import sft


def test_the_seconds_of_a_step_end_where_measuring_begins(nano, tmp_path, monkeypatch):
    def slowly(*_):
        time.sleep(1.5)
        return 1.0

    monkeypatch.setattr(sft, "mean_nll", slowly)
    common = {"max_steps": 2, "eval_every": 1, "batch_size": 4, "max_length": 96, "dtype": "float32"}
    done = sft.run(SFTConfig(model=str(nano), data="world", demonstrations=40, out=str(tmp_path / "run"), **common))
    first, last = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert last["seconds"] - first["seconds"] >= 1.5  # the first measuring lies before the second step's end
    assert done["seconds"] - last["seconds"] >= 1.5  # the second after it
