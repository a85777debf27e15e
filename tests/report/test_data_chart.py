"""The chart of `data stats`: a well-formed file that says what the tables say."""

import json
import re
from xml.etree import ElementTree

import pytest

from tutelage.cli.main import main
from tutelage.data.stats import describe, stats
from tutelage.report.data_chart import bars, boxes, data_chart

ROWS = [
    {
        "prompt": "word " * (i + 1),
        "completions": ["one two", "three"],
        "ranks": [1, 2],
        "category": ("generation", "chat", "<script>x & y</script> and so on and on")[i % 3],
        "user_id": f"u{i % 4}",
        "flags": [["harmful"], []],
    }
    for i in range(12)
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rankings.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return path


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_each_table_with_rows_has_its_panel(data):
    tables = stats(str(data))
    said = texts(data_chart(tables))
    for words in ("Use cases (table 1); marks: the paper's shares", "Sizes (table 6)", "Annotations (table 7)"):
        assert words in said
    assert "Prompts a customer (table 8)" in said and "Prompt lengths by use case (table 10), words" in said
    assert said.count("33.3 %") >= 3 and "generation" in said
    assert any(text.startswith("<script>x & y<") and text.endswith("…") for text in said)  # text, and cut
    few = {**tables, "annotations": {}, "per_customer": {}, "sizes": {}}
    assert "Annotations (table 7)" not in texts(data_chart(few)) and "Sizes (table 6)" not in texts(data_chart(few))


def test_bars_are_as_long_as_their_values_and_marks_stand_at_theirs():
    svg = bars([("a", 40.0, 20.0), ("b", 10.0, None)], "t", str)
    widths = [float(width) for width in re.findall(r'class="m"[^>]* width="([\d.]+)"', svg)]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.2)
    start = float(re.search(r'class="m" x="([\d.]+)"', svg).group(1))
    mark = float(re.search(r's-ppo" d="M([\d.]+)', svg).group(1))
    assert mark - start == pytest.approx(widths[0] / 2, abs=0.2)


def test_a_box_spans_the_quartiles_and_its_line_the_range():
    svg = boxes([("a", describe([0, 10, 20, 30, 1000])), ("b", describe([5]))], "t")
    low, high = (float(v) for v in re.search(r'class="l" d="M([\d.]+) [\d.]+H([\d.]+)"', svg).groups())
    x, width = (float(v) for v in re.search(r'hollow" x="([\d.]+)" y="\d+" width="([\d.]+)"', svg).groups())
    median = float(re.search(r'<path class="l" d="M([\d.]+) \d+v17', svg).group(1))
    assert low < x < median < x + width < high
    assert (median - low) / (high - low) == pytest.approx(3.0445 / 6.9088, abs=0.01)  # log 21 / log 1001


def test_from_the_command_line(data, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as caught:
            main(["data", "stats", str(data), *words])
        return caught.value.code, capsys.readouterr()

    chart = tmp_path / "new" / "stats.svg"
    code, said = run("--chart", str(chart))
    assert code == 0 and f"chart: {chart}" in said.out and ElementTree.parse(chart).getroot().tag.endswith("svg")
    plain, drawn = run("--json")[1].out, run("--json", "--chart", str(chart))[1].out
    assert plain == drawn and "chart" not in json.loads(plain)
    code, said = run("--chart", str(tmp_path / "stats.png"))
    assert code == 2 and "is no .svg file" in said.err
    (tmp_path / "folder.svg").mkdir()
    code, said = run("--chart", str(tmp_path / "folder.svg"))
    assert code == 2 and "cannot be written" in said.err
