"""The options of `tutelage serve`: names of models, bad values."""

import subprocess
import sys

import pytest

from tutelage.cli.serve import ServeOptions, named
from tutelage.errors import UserError


def test_models_are_named_after_their_folders_or_as_told():
    assert named(("runs/q/sft/checkpoints/latest", "best=runs/q/ppo", "world")) == [
        ("sft", "runs/q/sft/checkpoints/latest"),
        ("best", "runs/q/ppo"),
        ("world", "world"),
    ]
    assert [name for name, _ in named(("a/sft", "b/sft"))] == ["a/sft", "b/sft"]
    for wrong in (("x=a", "x=b"), ("=a",), ("a/ppo", "ppo=b")):
        with pytest.raises(UserError, match="NAME=FOLDER"):
            named(wrong)


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"port": -1}, {"batch_size": 0}, {"model": ()}])
def test_bad_values(wrong):
    with pytest.raises(UserError):
        ServeOptions(**wrong)


def test_the_options_are_read_without_torch_or_a_server():
    code = "import sys, tutelage.cli.serve; sys.exit(bool({'torch', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
