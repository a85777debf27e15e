"""A state comes back bit for bit, holds no more memory than it needs, and runs no code when it is read."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.runs import Run
from tutelage.runs.checkpoints import load_state, save_state


def round_trip(tmp_path, state):
    save_state(tmp_path / "state.pt", state)
    return load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back_bit_for_bit(tmp_path, dtype):
    tensor = (torch.randn(5, 3) * 100).to(dtype)
    loaded = round_trip(tmp_path, {"a": [tensor]})["a"][0]
    assert loaded.dtype == dtype
    assert torch.equal(loaded, tensor)


def test_nan_and_negative_zero_too(tmp_path):
    tensor = torch.tensor([float("nan"), -0.0, float("inf")])
    loaded = round_trip(tmp_path, {"a": tensor})["a"]
    assert loaded.view(torch.int32).tolist() == tensor.view(torch.int32).tolist()


def test_every_random_state_goes_on_with_the_same_numbers(tmp_path):
    sources = random.Random(1), np.random.default_rng(2), np.random.RandomState(3), torch.Generator().manual_seed(4)
    python, numpy, legacy, generator = sources
    state = {
        "python": python.getstate(),
        "numpy": numpy.bit_generator.state,
        "legacy": legacy.get_state(),
        "torch": generator.get_state(),
    }

    def draw():
        return python.random(), numpy.random(), legacy.rand(), torch.rand(3, generator=generator).tolist()

    expected = draw()
    loaded = round_trip(tmp_path, state)
    python.setstate(loaded["python"])
    numpy.bit_generator.state = loaded["numpy"]
    legacy.set_state(loaded["legacy"])
    generator.set_state(loaded["torch"])
    assert draw() == expected


def test_an_optimizer_goes_on_with_the_same_numbers(tmp_path):
    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            model.weight.square().sum().backward()
            optimizer.step()

    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    steps(model, optimizer, 3)
    loaded = round_trip(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    steps(model, optimizer, 3)
    other = torch.nn.Linear(3, 3)
    other.load_state_dict(loaded["model"])
    again = torch.optim.AdamW(other.parameters())
    again.load_state_dict(loaded["optimizer"])
    steps(other, again, 3)
    assert torch.equal(other.weight, model.weight)


def test_plain_values_keep_their_types(tmp_path):
    state = {"a": 1, "b": 2.5, "c": None, "d": "ü", "e": (1, [True]), "f": {3: b"x"}, "g": {1, 2}, "h": 2**200}
    assert round_trip(tmp_path, state) == state


@pytest.mark.parametrize("code", ["int8", "uint64", "float16", "float64", "bool"])
def test_numpy_arrays_come_back(tmp_path, code):
    array = np.arange(4).astype(code)
    loaded = round_trip(tmp_path, {"a": array, "number": np.float64(0.1)})
    assert loaded["a"].dtype == array.dtype
    assert (loaded["a"] == array).all()
    assert loaded["number"] == 0.1


def test_a_view_does_not_drag_its_whole_tensor_along(tmp_path):
    large = torch.zeros(1_000_000)
    save_state(tmp_path / "state.pt", {"a": large[10:20], "grad": torch.nn.Parameter(large)[:3]})
    assert (tmp_path / "state.pt").stat().st_size < 10_000


@pytest.mark.parametrize("value", [Path("x"), object(), print, np.array([object()])])
def test_what_could_not_be_read_back_is_refused_by_name_when_written(tmp_path, value):
    with pytest.raises(TypeError, match=r"state\['data'\]\[1\] is a "):
        save_state(tmp_path / "state.pt", {"data": [1, value]})


def test_no_code_in_a_file_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"a": Evil()}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "owned").exists()


def test_a_run_gives_the_state_of_its_newest_checkpoint(tmp_path):
    run = Run.open(tmp_path, stage="sft", config={}, resume=False)
    for step in (1, 2):
        run.save(step, lambda folder: (folder / "config.json").write_text("{}"), {"w": torch.full((2,), float(step))})
    assert Run.open(tmp_path, stage="sft", config={}, resume=True).load_state()["w"].tolist() == [2.0, 2.0]
