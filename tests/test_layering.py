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
    "__init__": {"api", "cli", "engine"},  # inside `__getattr__`: importing the package imports nothing
    "errors": set(),
    "atomic": set(),
    "volume": set(),
    "patches": set(),
    "losses": set(),
    "schedule": set(),
    "overlap": set(),
    "cli": set(),
    "config": set(),
    "checkpoint": set(),
    "network.__init__": set(),
    "network.winograd": set(),
    "network.blocks": {"network.winograd"},
    "network.encoder": {"network.blocks"},
    "network.decoder": {"network.blocks"},
    "network.heads": {"network.blocks"},
    "network.unet": {"config", "network.blocks", "network.encoder", "network.decoder", "network.heads"},
    "network.folded": {"config", "network.blocks", "network.unet", "network.winograd"},
    "optimizer": {"config", "schedule"},
    "postprocess": {"volume"},
    "quality": {"overlap", "postprocess", "volume"},
    "quality_flags": set(),
    "surface": {"volume"},
    "figures": {"volume"},
    "segments": {"volume"},
    "smooth_field": {"segments", "volume"},
    "mesh": {"smooth_field", "surface", "volume"},
    "shading": set(),
    "preview": {"figures", "segments", "shading", "smooth_field", "volume"},
    "segment_nrrd": {"segments", "volume", "volume_io"},
    "dicom_seg": {"segments", "volume"},
    "scan_checks": set(),
    "rigid": {"volume"},
    "scan_hash": {"dicom", "scan_checks", "volume_io"},
    "nifti": {"rigid", "scan_checks"},
    "dicom_contrast": set(),
    "dicom_header": {"dicom_contrast", "rigid", "scan_checks"},
    "dicom": {"dicom_contrast", "dicom_header", "scan_checks"},
    "volume_io": {"dicom", "nifti", "rigid", "scan_checks", "volume"},
    "scan_sources": {"volume_io", "dicom_header", "scan_checks", "summary"},
    "summary": set(),
    "dataset_folder": {"volume", "volume_io"},
    "preprocess": {"config", "volume", "volume_io"},
    "augment": set(),
    "hdf5": {"volume"},
    "sliding_window": {"patches"},
    "experiment_file": {"config"},
    "packing": {"augment", "config", "dataset_folder", "hdf5", "preprocess"},
    "sampler": {"augment", "config", "hdf5", "patches"},
    "dataset": {"sampler"},
    "prefetch": {"sampler"},
    "train_step": {"losses"},
    "train_step_jax": {"losses"},
    "predictor": {"network.unet"},
    "predictor_jax": {"network.unet"},
    "predictor_openvino": {"network.blocks", "network.heads"},
    "coarse_to_fine": {"network.heads", "network.unet"},
    "fused_normalisation": set(),
    "engine": {"dataset", "fused_normalisation", "predictor", "predictor_jax", "prefetch", "train_step"}
    | {"train_step_jax"},
    "encoder_weights": {"hdf5", "network.encoder"},
    "model_folder": {"config", "hdf5", "network.unet", "quality_flags"},
    "run_folder": {"config"},
    "validation": {"hdf5", "overlap", "patches", "sliding_window", "volume"},
    "tensorboard_log": {"figures", "validation"},
    "segmentation": {"coarse_to_fine", "config", "engine", "model_folder", "network.folded", "network.unet", "patches"}
    | {"postprocess", "preprocess", "predictor_openvino", "quality", "quality_flags", "sliding_window", "volume"}
    | {"volume_io"},
    "results": {
        "dicom",
        "dicom_seg",
        "mesh",
        "preview",
        "quality_flags",
        "segment_nrrd",
        "segmentation",
        "segments",
        "summary",
    }
    | {"volume_io"},
    "output_folder": {"results", "scan_checks", "scan_hash", "scan_sources"},
    "api": {"model_folder", "rigid", "segmentation", "volume", "volume_io"},
    "report": {"overlap", "surface", "volume"},
    "evaluation": {"report", "volume", "volume_io"},
}
OPEN_TO_ALL = {"errors", "atomic", "__init__"}
LIBRARIES = {
    "SimpleITK": {"volume_io", "dicom", "dicom_header", "scan_checks", "preprocess"},
    "h5py": {"hdf5"},
    "vtkmodules": {"surface"},
    "tensorflow": {"dataset", "engine", "fused_normalisation", "predictor", "train_step"},
    "jax": {"engine", "predictor_jax", "train_step_jax"},
    "openvino": {"predictor_openvino"},
    "tensorboard": {"tensorboard_log"},
    "PIL": {"tensorboard_log"},
    "matplotlib": {"figures", "preview"},
    "highdicom": {"dicom_seg"},
    "pydicom": {"dicom_seg"},
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
            names |= {f"{node.module}.{a.name}" for a in node.names} if node.module == "femur3d" else {str(node.module)}
    return names


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
        assert name in ENTRY_POINTS | {"training"} or name.startswith("phantom")
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
