"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from femur3d.config import Experiment, Network, Preprocessing, Training

ROOT = Path(__file__).parents[1]
# Commands that tests start, in whatever folder, find `tools`, `experiments` and `benchmarks`.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores: one thread each, also of the commands they start
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_collection_finish() -> None:
    """Prepares TensorFlow where a chosen test has imported it; the others do not wait for it."""
    if "tensorflow" in sys.modules:
        use_one_tensorflow_thread()


def use_one_tensorflow_thread() -> None:
    """As the entry points do: runs are the same bit for bit."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Keras imports JAX where it is there, and JAX sets this for the commands that tests start; a shell does not.
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)


@pytest.fixture(scope="session")
def hips_dir() -> Path:
    """Folder of real scans (imagesTr, labelsTr, dicom, …) named by FEMUR3D_HIPS; the test is skipped without it."""
    folder = os.environ.get("FEMUR3D_HIPS", "")
    if not (Path(folder) / "imagesTr").is_dir() or not folder:
        pytest.skip(f"real scans: set FEMUR3D_HIPS to their folder (received {folder!r}, which has no imagesTr)")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_experiment() -> Experiment:
    """The paper's network and loop, small enough to train in seconds."""
    return Experiment(
        "tiny",
        preprocessing=Preprocessing(spacing_mm=(2.0, 2.0, 2.0), margin_mm=6.0, patch_size=(16, 16, 16)),
        network=Network((2, 3, 4, 4), (4, 3, 2), initialisation="he"),
        training=Training(
            steps=6,
            rate=1e-2,
            nesterov=True,
            clip_norm=1.0,
            augmentation_probability=0.5,
            batches_per_volume=2,
            foreground_probability=0.5,
            variants=(0, 6),
            checkpoint_every=3,
            validate_every=6,
            log_every=2,
        ),
    )


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.ellipsoids import write_dataset

    return write_dataset(tmp_path_factory.mktemp("ellipsoids"))


@pytest.fixture(scope="session")
def packed_file(dataset_dir: Path, tiny_experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from femur3d.data.packing import pack_dataset

    path = tmp_path_factory.mktemp("packed") / "ellipsoids.h5"
    pack_dataset(dataset_dir, path, tiny_experiment, lambda name: None)
    return path


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory) -> Path:
    """Folder of the model of `threshold_network`."""
    use_one_tensorflow_thread()
    from femur3d.inference.saved_model import save_model
    from tests.support.networks import PREPROCESSING, threshold_network

    folder = tmp_path_factory.mktemp("models") / "threshold"
    config, network = threshold_network()
    save_model(folder, network, config, PREPROCESSING, {"experiment": "threshold"})
    return folder
