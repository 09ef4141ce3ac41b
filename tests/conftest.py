"""Settings of every test: the same random numbers in every run."""

import pytest
import torch

from .quick import is_slow

try:
    from hypothesis import settings
except ImportError:  # the tests that need it say so themselves
    pass
else:
    # a shared machine makes deadlines fail by chance
    settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
    settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """``-m "not slow"`` is make test-quick."""
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def seed():
    # torch.manual_seed would format the stack for each kind of device: 5 ms a test
    torch.default_generator.manual_seed(1)
