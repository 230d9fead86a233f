"""Bad input is refused whatever others have switched: a test that expects it runs twice."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def foreign_switches() -> Iterator[None]:
    """The switches of torch and NumPy as a notebook's other libraries may leave them."""
    import numpy as np
    import torch
    from torch.distributions import Distribution

    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)  # as one torch.compile(...) leaves it for good
    try:
        with torch.no_grad(), np.errstate(all="raise"):
            yield
    finally:
        Distribution.set_default_validate_args(before)


def expects_bad_input(item: pytest.Function) -> bool:
    """Whether it is a test of what is computed that something is refused."""
    return hasattr(item.module, "torch") and "raises(ValueError" in inspect.getsource(item.obj)


class Plugin:
    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(
        self, pyfuncitem: pytest.Function
    ) -> Generator[None, object | None, object | None]:
        result = yield
        if expects_bad_input(pyfuncitem):
            names = pyfuncitem._fixtureinfo.argnames
            with foreign_switches():
                try:
                    pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
                except BaseException as error:
                    error.add_note("this was the second run, under foreign switches")
                    raise
        return result
