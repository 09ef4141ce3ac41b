"""Settings of every test: the same random numbers in every run."""

import pytest
import torch

try:
    from hypothesis import settings
except ImportError:  # the tests that need it say so themselves
    pass
else:
    # a shared machine makes deadlines fail by chance
    settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
    settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)
