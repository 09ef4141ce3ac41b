"""The examples in the docstrings of every module."""

import doctest
import importlib
import pkgutil

import pytest

import fairseq_entmax

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fairseq_entmax.__path__, "fairseq_entmax.")
    if not module.name.split(".")[-1].startswith("_")  # compiled libraries, __main__
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        example
        for name in MODULES
        for found in finder.find(importlib.import_module(name))
        for example in found.examples
    ]
    assert len(examples) > 20
