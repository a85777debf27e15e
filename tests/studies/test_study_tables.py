"""Tables of measures that what is varied leaves alone."""

import pytest
import yaml

from tutelage.errors import UserError
from tutelage.studies.measures import Cell
from tutelage.studies.schema import find, load_study
from tutelage.studies.tables import as_markdown, measure_tables


def cell(rate: float) -> Cell:
    rows = [{"n": 1, "orm": {"value": 0.1}}, {"n": 2, "orm": {"value": rate}}]
    return Cell({}, {"rerank": {"best_of_n": rows, "seconds": 3.0}, "ppo": {"seconds": 7}})


TABLES = {
    "Solved": {
        "best of two": {"share": {"result": "best_of_n.-1.orm.value", "stage": "rerank"}},
        "ppo": {
            "seconds": {"result": "seconds", "stage": "ppo"},
            "share": {"result": "best_of_n.2.orm.value", "stage": "rerank"},
        },
    }
}


def test_a_measure_is_a_mean_over_seeds_with_its_interval():
    found = measure_tables(TABLES, [cell(0.4), cell(0.5), cell(0.6)])
    share = found["Solved"]["best of two"]["share"]
    assert share["mean"] == pytest.approx(0.5)
    # Student's t with two degrees of freedom: 4.303 * 0.1 / sqrt(3).
    assert share["ci95"] == pytest.approx([0.5 - 0.2484, 0.5 + 0.2484], abs=1e-3)
    assert found["Solved"]["ppo"]["share"]["mean"] is None  # there is no third row
    assert as_markdown(found) == [
        "## Solved",
        "",
        "| | share | seconds |",
        "|---|---|---|",
        "| best of two | 0.5 (0.252 to 0.748) | – |",
        "| ppo | – | 7 (7 to 7) |",
        "",
    ]


def test_a_table_measures_stages_that_are_there():
    with pytest.raises(UserError, match="there is no stage 'rerank' to measure"):
        measure_tables(TABLES, [Cell({}, {"ppo": {}})])


def test_a_stage_that_is_not_there_is_said_before_anything_runs(tmp_path):
    row = yaml.safe_load(find("studies", "approaches").read_text())
    row["tables"] = {"Solved": {"ppo": {"seconds": {"result": "seconds", "stage": "pop"}}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(row))
    with pytest.raises(UserError, match=r"there is no stage 'pop' \(did you mean ppo\?\)"):
        load_study(tmp_path / "own.yaml")


def test_process_rewards_stand_beside_outcomes_in_the_shipped_study():
    (rows,) = load_study(find("studies", "approaches")).tables.values()
    assert {"majority of 16", "PPO on the outcome model", "PPO on the process model"} <= set(rows)
