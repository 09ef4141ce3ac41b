"""The examples in docstrings run, in every module of the package."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import fairseq_entmax
from fairseq_entmax import analysis, decoding, functional, modules, scoring, transduction

MODULES = ["fairseq_entmax"] + [
    module.name
    for module in pkgutil.walk_packages(fairseq_entmax.__path__, "fairseq_entmax.")
    if "._entmax_" not in module.name  # the C kernels are no Python extensions
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_every_module_is_walked():
    assert {"fairseq_entmax.functional.mapping", "fairseq_entmax.kernels.plain"} < set(MODULES)


@pytest.mark.parametrize("room", [analysis, decoding, functional, modules, scoring, transduction])
def test_every_public_class_has_an_example(room):
    classes = filter(inspect.isclass, (getattr(room, name) for name in room.__all__))
    assert not [made.__name__ for made in classes if "Example:" not in inspect.getdoc(made)]


@pytest.mark.parametrize("name", functional.__all__)
def test_every_public_function_has_an_example(name):
    function = getattr(functional, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(function, name)
    assert found.examples
