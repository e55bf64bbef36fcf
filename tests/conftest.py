"""Fixtures that several test modules share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from femur3d.config import Experiment, Network, Preprocessing, Training
from femur3d.data.packing import pack_dataset
from femur3d.inference.saved_model import save_model
from femur3d.io.images import write_volume
from femur3d.network.unet import build_network
from femur3d.volume import Volume

# Keras imports JAX where it is there, and JAX sets this for the processes that tests start; a user's shell does not.
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
tf.config.threading.set_inter_op_parallelism_threads(1)  # as the entry points do: runs are the same bit for bit


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


def ellipsoid_case(seed: int = 0, values: tuple[int, ...] = (1, 2)) -> tuple[Volume, Volume]:
    """A scan of 40×30×36 voxels of 2 mm with a bright ellipsoid on either side of the midline, and its label map."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:36, :30, :40]
    label = np.zeros((36, 30, 40), np.uint8)
    for value, centre in zip(values, (29, 10), strict=False):
        inside = ((z - 18) / 12) ** 2 + ((y - 15) / 7) ** 2 + ((x - centre) / 6) ** 2 < 1
        label[inside] = value
    image = 100 + 300 * (label > 0) + rng.normal(0, 20, label.shape)
    scan = Volume(image.astype(np.float32), (2.0, 2.0, 2.0), (-40.0, -30.0, -20.0))
    return scan, scan.with_array(label)


def write_dataset(folder: Path, cases: int = 3, validation: int = 1) -> Path:
    """An nnU-Net-layout dataset of ellipsoid cases; the last ones are for validation."""
    names = [f"case_{i}" for i in range(cases)]
    for seed, name in enumerate(names):
        scan, label = ellipsoid_case(seed)
        (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_volume(scan, folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_volume(label, folder / "labelsTr" / f"{name}.nii.gz")
    labels = {"background": 0, "femur_left": 1, "femur_right": 2}
    (folder / "dataset.json").write_text(json.dumps({"name": "ellipsoids", "labels": labels}))
    split = {"train": names[: cases - validation], "val": names[cases - validation :]}
    (folder / "splits_final.json").write_text(json.dumps([split]))
    return folder


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("ellipsoids"))


@pytest.fixture(scope="session")
def packed_file(dataset_dir: Path, tiny_experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "ellipsoids.h5"
    pack_dataset(dataset_dir, path, tiny_experiment, lambda name: None)
    return path


PREPROCESSING = Preprocessing(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))


def threshold_network():
    """A network that calls a voxel femur where its normalised intensity is above zero: exact, and needs no training.

    The skip from conv1a carries the intensity to UpperCls; every kernel off that path is zero.
    """
    config = Network((1, 1, 1, 1), (1, 1, 1))
    network = build_network(config)
    for layer in network.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    path = {"conv1a": (0, 0), "upper_conv_a": (1, 0), "upper_conv_b": (0, 0), "upper_cls": (0, 1)}
    for name, (i, o) in path.items():  # upper_concat holds [deconv, skip]
        kernel = np.zeros(network.get_layer(name).kernel.shape)
        kernel[1, 1, 1, i, o] = 1
        network.get_layer(name).kernel.assign(kernel)
    network.get_layer("upper_cls").bias.assign([0.0, -0.5])
    return config, network


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory) -> Path:
    """Folder of the model of `threshold_network`."""
    folder = tmp_path_factory.mktemp("models") / "threshold"
    config, network = threshold_network()
    save_model(folder, network, config, PREPROCESSING, {"experiment": "threshold"})
    return folder
