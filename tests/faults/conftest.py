"""The corpus and the models of tests/cli."""

from tests.cli.conftest import data, shared, trained  # noqa: F401
