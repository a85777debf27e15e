"""The options of `tutelage serve`: names of models, bad values."""

import subprocess
import sys

import pytest

from tutelage.cli.serve import ServeOptions, named
from tutelage.errors import UserError
from tutelage.serving.listening import trusted_proxies


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


@pytest.mark.parametrize(
    "wrong", [{"port": 70000}, {"port": -1}, {"batch_size": 0}, {"model": ()}, {"trusted_proxy": ("*",)}]
)
def test_bad_values(wrong):
    with pytest.raises(UserError):
        ServeOptions(**wrong)


def test_the_options_are_read_without_torch_or_a_server():
    code = "import sys, tutelage.cli.serve; sys.exit(bool({'torch', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_trusted_proxy_is_an_address_or_a_network():
    assert trusted_proxies(("127.0.0.1", "172.30.0.9/24", "::1")) == ["127.0.0.1", "172.30.0.0/24", "::1"]
    for wrong in ("*", "proxy.example.org", "0.0.0.0/0", "::/0", "/run/socket", ""):
        with pytest.raises(UserError, match="trusted-proxy"):
            trusted_proxies((wrong,))
