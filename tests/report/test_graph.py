"""The lineage's drawing: columns from sources to the end, no box on another, every box a link, every text escaped."""

import xml.etree.ElementTree as ET

from tutelage.report.graph import HIGH, WIDE, Node, graph

SVG = "{http://www.w3.org/2000/svg}"
NODES = [
    Node("ppo", "this run", "#from-0", "g-model", (1, 2, 3)),
    Node("sft", "model", "/runs/sft", "g-model", (3, 4)),
    Node("reward", "reward model", "/runs/reward", "g-judge", (1, 3)),
    Node("world", "data", "#from-3", "g-data"),
    Node("a <base> of a very long name indeed", "model", "#from-4", "g-model"),
]


def boxes(drawn):
    root = ET.fromstring(drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    found = {}
    for link in root.iter(f"{SVG}a"):
        rect = link.find(f"{SVG}rect")
        found[link.get("href")] = (float(rect.get("x")), float(rect.get("y")))
    return root, found


def test_what_a_thing_is_made_of_stands_left_of_it():
    root, places = boxes(graph(NODES, "What ppo was made of"))
    assert len(places) == len(NODES)  # each node a link
    for node in NODES:
        for before in node.inputs:
            assert places[NODES[before].href][0] + WIDE < places[node.href][0]
    assert len(root.findall(f"{SVG}path[@class='edge']")) == sum(len(n.inputs) for n in NODES)
    corners = sorted(places.values())
    for i, (x, y) in enumerate(corners):
        for other_x, other_y in corners[i + 1 :]:
            assert abs(x - other_x) >= WIDE or abs(y - other_y) >= HIGH
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(0 <= x <= width - WIDE and 0 <= y <= height - HIGH for x, y in corners)


def test_names_are_text():
    drawn = graph(NODES, 'a "title"')
    assert "<base>" not in drawn and "&lt;base&gt;" in drawn and "very long name indeed" in drawn


def test_one_node_and_none():
    assert len(boxes(graph(NODES[3:4], "t"))[1]) == 1
    assert boxes(graph([], "t"))[1] == {}
