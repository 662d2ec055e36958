"""The package's names: all there, all documented, none too many."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from types import ModuleType

import pytest
from processes import run

import engine
import evals
import rsa


@pytest.mark.parametrize("package", [rsa, evals], ids=lambda package: package.__name__)
def test_all_names_can_be_imported_and_are_documented(package: ModuleType) -> None:
    assert package.__all__ == sorted(set(package.__all__), key=package.__all__.index), "no name twice"
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(("__main__", "math_worker")):  # programs
            importlib.import_module(module.name)  # a module of the same name would hide it from now on
    for name in package.__all__:
        found = getattr(package, name)
        assert inspect.getdoc(found), f"{package.__name__}.{name} has no docstring"
        assert found.__name__ == name
    assert dir(package) == package.__all__


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'rsa' has no attribute 'solve_everything'"):
        _ = rsa.solve_everything


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from rsa import *", names)
    assert set(rsa.__all__) <= set(names)


@pytest.mark.parametrize("package", [rsa, evals, engine], ids=lambda package: package.__name__)
def test_every_module_can_be_imported_and_is_documented(package: ModuleType) -> None:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith(("__main__", "math_worker")):  # programs
            assert importlib.import_module(found.name).__doc__, f"{found.name} has no docstring"


def test_the_package_runs_as_a_module() -> None:
    done = run([sys.executable, "-m", "rsa", "--help"], check=True)
    assert "solve" in done.stdout
    assert done.stderr == ""
