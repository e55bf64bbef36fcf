"""The import rules of the layout: data flows down, imports go up only."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "femur3d"
ENTRY_POINTS = {"pack", "train", "infer", "evaluate"}

# What each module may import from femur3d. `errors`, `atomic` and the version are open to all.
ALLOWED = {
    "__init__": {"api", "cli", "engines.backend"},  # inside `__getattr__`: importing the package imports nothing
    "errors": set(),
    "io.atomic": set(),
    "volume": set(),
    "data.patches": set(),
    "training.losses": set(),
    "training.schedule": set(),
    "evaluation.overlap": set(),
    "cli": set(),
    "config": set(),
    "training.checkpoint": set(),
    "network.__init__": set(),
    "engines.winograd": set(),
    "network.blocks": {"engines.winograd"},
    "network.encoder": {"network.blocks"},
    "network.decoder": {"network.blocks"},
    "network.heads": {"network.blocks"},
    "network.unet": {"config", "network.blocks", "network.encoder", "network.decoder", "network.heads"},
    "engines.fused_for_inference": {"config", "network.blocks", "network.unet", "engines.winograd"},
    "training.optimizer": {"config", "training.schedule"},
    "inference.postprocessing": {"volume"},
    "inference.quality": {"evaluation.overlap", "inference.postprocessing", "volume"},
    "inference.quality_limits": set(),
    "evaluation.surface_distance": {"volume"},
    "export.contour_figure": {"volume"},
    "export.segments": {"volume"},
    "export.implicit_surface": {"export.segments", "volume"},
    "export.mesh": {"export.implicit_surface", "evaluation.surface_distance", "volume"},
    "export.shading": set(),
    "export.preview": {
        "export.contour_figure",
        "export.segments",
        "export.shading",
        "export.implicit_surface",
        "volume",
    },
    "export.slicer": {"export.segments", "volume", "io.images"},
    "export.dicom_seg": {"export.segments", "volume"},
    "io.integrity": set(),
    "io.geometry": {"volume"},
    "io.digest": {"io.dicom.series", "io.integrity", "io.images"},
    "io.nifti": {"io.geometry", "io.integrity"},
    "io.dicom.contrast": set(),
    "io.dicom.headers": {"io.dicom.contrast", "io.geometry", "io.integrity"},
    "io.dicom.series": {"io.dicom.contrast", "io.dicom.headers", "io.integrity"},
    "io.images": {"io.dicom.series", "io.nifti", "io.geometry", "io.integrity", "volume"},
    "io.inputs": {"io.images", "io.dicom.headers", "io.integrity", "io.summary"},
    "io.summary": set(),
    "io.hdf5": set(),
    "data.nnunet_dataset": {"volume", "io.images"},
    "data.preprocessing": {"config", "volume", "io.images"},
    "data.augmentation": set(),
    "data.packed_dataset": {"config", "volume", "io.hdf5"},
    "inference.sliding_window": {"data.patches"},
    "experiment_file": {"config"},
    "data.packing": {"data.augmentation", "config", "data.nnunet_dataset", "data.packed_dataset", "data.preprocessing"},
    "data.sampler": {"data.augmentation", "config", "data.packed_dataset", "data.patches"},
    "training.tf_dataset": {"data.sampler"},
    "engines.prefetch": {"data.sampler"},
    "training.train_step": {"training.losses"},
    "engines.jax_train_step": {"training.losses"},
    "engines.tensorflow_predictor": {"network.unet"},
    "engines.jax_predictor": {"network.unet"},
    "engines.openvino_predictor": {"network.blocks", "network.heads"},
    "engines.coarse_to_fine": {"network.heads", "network.unet"},
    "engines.fused_batch_norm": set(),
    "engines.backend": {
        "training.tf_dataset",
        "engines.fused_batch_norm",
        "engines.tensorflow_predictor",
        "engines.jax_predictor",
        "engines.prefetch",
        "training.train_step",
    }
    | {"engines.jax_train_step"},
    "network.encoder_weights": {"io.hdf5", "network.encoder"},
    "inference.saved_model": {"config", "io.hdf5", "network.unet", "inference.quality_limits"},
    "training.run_directory": {"config"},
    "training.validation": {
        "data.packed_dataset",
        "evaluation.overlap",
        "data.patches",
        "inference.sliding_window",
        "volume",
    },
    "training.tensorboard": {"export.contour_figure", "training.validation"},
    "inference.segmenter": {
        "engines.coarse_to_fine",
        "config",
        "engines.backend",
        "inference.saved_model",
        "engines.fused_for_inference",
        "network.unet",
        "data.patches",
    }
    | {
        "inference.postprocessing",
        "data.preprocessing",
        "engines.openvino_predictor",
        "inference.quality",
        "inference.quality_limits",
        "inference.sliding_window",
        "volume",
    }
    | {"io.images"},
    "export.case_results": {
        "io.dicom.series",
        "export.dicom_seg",
        "export.mesh",
        "export.preview",
        "inference.quality_limits",
        "export.slicer",
        "inference.segmenter",
        "export.segments",
        "io.summary",
    }
    | {"io.images"},
    "export.output_folder": {"export.case_results", "io.integrity", "io.digest", "io.inputs"},
    "api": {"inference.saved_model", "io.geometry", "inference.segmenter", "volume", "io.images"},
    "evaluation.tables": {"evaluation.overlap", "evaluation.surface_distance", "volume"},
    "evaluation.cases": {"evaluation.tables", "volume", "io.images"},
}
OPEN_TO_ALL = {"errors", "io.atomic", "__init__"}
LIBRARIES = {
    "SimpleITK": {"io.images", "io.dicom.series", "io.dicom.headers", "io.integrity", "data.preprocessing"},
    "h5py": {"data.packed_dataset", "io.hdf5"},
    "vtkmodules": {"evaluation.surface_distance"},
    "tensorflow": {
        "training.tf_dataset",
        "engines.backend",
        "engines.fused_batch_norm",
        "engines.tensorflow_predictor",
        "training.train_step",
    },
    "jax": {"engines.backend", "engines.jax_predictor", "engines.jax_train_step"},
    "openvino": {"engines.openvino_predictor"},
    "tensorboard": {"training.tensorboard"},
    "PIL": {"training.tensorboard"},
    "matplotlib": {"export.contour_figure", "export.preview"},
    "highdicom": {"export.dicom_seg"},
    "pydicom": {"export.dicom_seg"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below femur3d."""
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}


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


def own_imports(path: Path) -> set[str]:
    """Modules of femur3d that a file imports; the package itself counts as `__init__`."""
    names = {n for n in imported(path) if n.split(".")[0] == "femur3d"}
    return {n.removeprefix("femur3d").lstrip(".") or "__init__" for n in names}


@pytest.mark.parametrize("name", sorted(modules()))
def test_module_imports_only_what_the_table_allows(name):
    found = own_imports(modules()[name]) - OPEN_TO_ALL
    if name in ALLOWED:
        assert found <= ALLOWED[name]
    else:  # entry points, the training loop and the phantom: anything but entry points
        assert name in ENTRY_POINTS | {"training.trainer"} or name.startswith("phantom") or name.endswith("__init__")
        assert not found & ENTRY_POINTS


def test_there_is_no_import_cycle():
    graph = {name: own_imports(path) for name, path in modules().items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", sorted(modules()))
def test_package_imports_no_experiment_tool_or_test(name):
    tops = {n.split(".")[0] for n in imported(modules()[name])}
    assert not tops & {"experiments", "tools", "tests"}


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_library_is_imported_where_it_belongs(library):
    users = {n for n, p in modules().items() if library in {i.split(".")[0] for i in imported(p)}}
    assert users <= LIBRARIES[library]


def test_table_names_no_module_that_is_gone():
    assert set(ALLOWED) | ENTRY_POINTS <= set(modules())
