"""A nano model of the world, with fresh weights, that any stage can load."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share two cores
os.environ["TUTELAGE_STRICT_METRICS"] = "1"  # a metric that is not registered is an error


@pytest.fixture(scope="session")
def tokenizer():
    from tutelage.world.build import make_tokenizer

    return make_tokenizer()


@pytest.fixture(scope="session")
def nano(tmp_path_factory, tokenizer) -> Path:
    """A folder with an untrained nano policy."""
    from tutelage.models import Policy, save_model
    from tutelage.world.build import SIZES, make_model

    folder = tmp_path_factory.mktemp("nano") / "model"
    save_model(
        folder, Policy(make_model(SIZES["nano"], tokenizer, 0, "float32"), tokenizer), {"role": "policy"}, verify=True
    )
    return folder
