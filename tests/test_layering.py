"""The layout: data flows down, imports go up; a library is used where it belongs; packages and modules stay small."""

import ast
import collections
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "femur3d"
MOST_MODULES, MOST_LINES = 10, 320  # of a package, of a module

# A package may import those above it, never those below: the modules of the root first, the commands last.
ORDER = (
    "foundation", "io", "network", "evaluation", "data", "inference", "training", "engines", "morphometry", "export",
    "report", "cluster", "slicer_module", "phantom", "commands",
)  # fmt: skip
FOUNDATION = {"errors", "volume", "config"}
LIBRARIES = {  # packages, or single modules of them, that may import a library
    "tensorflow": {"training.train_step", "engines", "commands"},
    "jax": {"engines"},
    "openvino": {"engines"},
    "keras": {"network", "training", "inference", "engines", "commands"},
    "h5py": {"io.formats.hdf5", "data.packed_dataset"},
    "SimpleITK": {"io", "data.preprocessing"},
    "nibabel": {"io"},
    "pydicom": {"io.dicom", "export.dicom"},
    "highdicom": {"export.dicom"},
    "igl": {"evaluation.surface_distance", "export.mesh", "report.surfaces"},
    "vtkmodules": set(),  # tests read with it what libigl wrote
    "matplotlib": {"evaluation.contour_figure", "export", "report.distance_figure"},
    "distributed": {"cluster"},
    "PIL": {"report.slices"},
    "tensorboardX": {"training.tensorboard"},
}


def modules() -> dict[str, Path]:
    """Every module of femur3d by its dotted name below it; `__init__` files count as their package."""
    names = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


MODULES = modules()


def package(module: str) -> str:
    """The row of ORDER that a module of femur3d belongs to."""
    first = module.partition(".")[0]
    if (PACKAGE / first).is_dir() and not module.endswith(".__main__"):
        return first
    return "foundation" if first in FOUNDATION else "commands"


@functools.cache
def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {_module(str(node.module), alias.name) for alias in node.names}
    return names


def _module(package: str, name: str) -> str:
    """The module that `from package import name` names: a module of the package, or the package itself."""
    path = ROOT / package.replace(".", "/") / name
    return f"{package}.{name}" if path.with_suffix(".py").is_file() or path.is_dir() else package


def own_imports(module: str) -> set[str]:
    """Modules of femur3d that one of them imports; its version, in femur3d itself, is open to all."""
    names = {name for name in imported(MODULES[module]) if name.startswith("femur3d.")}
    return {name.removeprefix("femur3d.") for name in names}


def test_every_package_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.rglob("*.py"))}
    assert folders <= set(ORDER)
    assert set(ORDER) - folders == {"foundation", "commands"}


@pytest.mark.parametrize("name", ORDER)
def test_package_imports_only_those_above_it(name):
    above = ORDER[: ORDER.index(name) + 1]
    wrong = {
        f"{module} imports {other}"
        for module in MODULES
        if package(module) == name
        for other in own_imports(module)
        if package(other) not in above
    }
    assert not wrong


def test_phantoms_stand_on_the_foundation_alone():
    """Their truth owes nothing to the code that is tested with it."""
    phantoms = [name for name in MODULES if package(name) == "phantom"]
    assert {package(other) for name in phantoms for other in own_imports(name)} <= {"foundation", "phantom"}


def test_there_is_no_import_cycle():
    graphlib.TopologicalSorter({name: own_imports(name) for name in MODULES}).prepare()


def test_femur3d_imports_nothing_that_is_not_installed_with_it():
    outside = {"experiments", "tools", "benchmarks", "tests"}
    assert not {name for name in MODULES if outside & {n.partition(".")[0] for n in imported(MODULES[name])}}


@pytest.mark.parametrize("library", LIBRARIES)
def test_library_is_imported_where_it_belongs(library):
    users = {name for name in MODULES if library in {n.partition(".")[0] for n in imported(MODULES[name])}}
    places = LIBRARIES[library]
    assert {name for name in users if not {name, package(name), name.rpartition(".")[0]} & places} == set()


def test_packages_have_few_modules():
    modules = [path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    counts = collections.Counter(path.parent.relative_to(PACKAGE) for path in modules)
    assert not {folder: count for folder, count in counts.items() if count > MOST_MODULES}


def test_modules_are_short():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {f"{name} is long" for name, count in lines.items() if count > MOST_LINES}


def test_no_test_imports_another():
    tests = {path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "support"}
    for path in tests:
        assert not {n for n in imported(path) if n.startswith("tests") and not n.startswith("tests.support")}, path


def test_training_on_a_packed_file_needs_neither_simpleitk_nor_libigl():
    code = "import sys; sys.modules.update(SimpleITK=None, igl=None, nibabel=None); import femur3d.train"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
