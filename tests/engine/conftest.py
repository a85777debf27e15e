"""What lies between products is computed in C, or by torch's functions: tests of it take both ways."""

import pytest

from tutelage.engine import native


@pytest.fixture(params=["in C", "by torch"])
def way(request, monkeypatch):
    if request.param == "by torch":
        monkeypatch.setattr(native, "kernels", lambda dtype: None)
    elif native.compiler() is None:
        pytest.skip("needs a C compiler")
    return request.param
