"""A scan in, a label map out: geometry, both femurs, batches, mistakes."""

import dataclasses
import json

import numpy as np
import pytest
from absl import flags
from conftest import ellipsoid_case

from femur3d import infer
from femur3d.config import Network, Preparation
from femur3d.errors import InputError, UsageError
from femur3d.model_folder import TrainedModel, load_model, save_model
from femur3d.network.unet import build_network
from femur3d.segmentation import Segmenter
from femur3d.volume_io import read_volume, write_volume

PREPARATION = Preparation(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))


def scan_and_label():
    """The ellipsoids as large as life: voxels of 5 mm, centres 95 mm apart."""
    return tuple(dataclasses.replace(v, spacing_mm=(5.0, 5.0, 5.0)) for v in ellipsoid_case())


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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "threshold"
    config, network = threshold_network()
    save_model(folder, network, config, PREPARATION, {"experiment": "threshold"})
    return folder


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(load_model(model))


@pytest.fixture
def infer_main(model, tmp_path):
    """`main` of femur3d.infer with parsed flags; the flags are put back afterwards."""

    def main(*words):
        flags.FLAGS.unparse_flags()
        for name in ("input", "output", "model", "labels", "overlap", "continue", "probability", "preview", "series"):
            flags.FLAGS[name].value = flags.FLAGS[name].default
        argv = ["infer", "-o", str(tmp_path / "out"), "--model", str(model), *map(str, words)]
        return infer.main(flags.FLAGS(argv))

    return main


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_both_femurs_of_a_bilateral_scan_on_its_own_grid(segmenter):
    scan, label = scan_and_label()
    coarse = dataclasses.replace(scan, array=scan.array[::2], spacing_mm=(5.0, 5.0, 10.0))
    result = segmenter(coarse, "sides")
    assert result.labels.geometry_difference(coarse) is None
    assert result.labels.array.dtype == np.uint8
    for value in (1, 2):
        assert dice(result.labels.array == value, label.array[::2] == value) > 0.9
    assert set(result.seconds) == {"preparation", "network", "postprocessing"}


def test_storage_order_and_intensity_scale_do_not_matter(segmenter):
    scan, _ = scan_and_label()
    plain = segmenter(scan, "sides").labels.array
    flipped = dataclasses.replace(
        scan,
        array=np.ascontiguousarray(3 * scan.array[:, :, ::-1] + 50),
        origin_mm=tuple(scan.world_mm((0, 0, scan.array.shape[2] - 1))),
        direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0),
    )
    np.testing.assert_array_equal(segmenter(flipped, "sides").labels.array[:, :, ::-1], plain)


def test_scan_smaller_than_a_patch(segmenter):
    scan, _ = scan_and_label()
    small = dataclasses.replace(scan, array=scan.array[10:20, 8:20, 20:36])
    assert segmenter(small).labels.array.shape == (10, 12, 16)


def test_progress_and_overlap(model):
    seen = []
    scan, _ = scan_and_label()
    Segmenter(load_model(model), overlap=0.0)(scan, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3 * 2 * 3, 18)


def test_files_written(infer_main, tmp_path):
    scan, label = scan_and_label()
    write_volume(scan, tmp_path / "a_0000.nii.gz")
    assert infer_main("-i", tmp_path / "a_0000.nii.gz", "--labels", "sides", "--probability", "--preview") == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["a.json", "a.nii.gz", "a_preview.png", "a_prob.nii.gz"]
    written = read_volume(out / "a.nii.gz")
    assert written.array.dtype == np.uint8
    assert written.geometry_difference(scan) is None
    assert dice(written.array == 1, label.array == 1) > 0.9
    summary = json.loads((out / "a.json").read_text())
    assert summary["volumes_ml"]["1"] == pytest.approx((written.array == 1).sum() * 0.125)
    assert summary["model"]["provenance"] == {"experiment": "threshold"}
    assert set(summary["seconds"]) == {"preparation", "network", "postprocessing", "total"}
    probability = read_volume(out / "a_prob.nii.gz").array
    assert 0 <= probability.min() < 0.5 < probability.max() <= 1


def test_batch_goes_on_after_a_bad_scan_and_continue_skips(infer_main, tmp_path, capsys):
    scans = tmp_path / "scans"
    scan, _ = scan_and_label()
    write_volume(scan, scans / "a.nii.gz")
    (scans / "b.nii.gz").write_bytes(b"")
    write_volume(scan.with_array(np.full(scan.array.shape, 5.0)), scans / "c.nrrd")
    write_volume(scan, scans / "d.mha")
    (scans / "._d.mha").write_bytes(b"hidden")
    assert infer_main("-i", scans) == 4
    errors = capsys.readouterr().err
    assert "b.nii.gz" in errors
    assert "every voxel is 5.0" in errors
    assert "Traceback" not in errors
    assert {p.name for p in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "d.nii.gz"}
    before = (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns
    assert infer_main("-i", scans, "--continue") == 4
    assert (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns == before
    assert "skipped" in capsys.readouterr().out
    assert infer_main("-i", scans, "--continue", "--labels", "sides") == 4
    assert (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns > before  # other labels were asked for


def test_several_inputs_follow_one_flag(infer_main, tmp_path):
    scan, _ = scan_and_label()
    for name in ("a", "b", "c"):
        write_volume(scan, tmp_path / f"{name}.nii.gz")
    assert infer_main("-i", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", tmp_path / "c.nii.gz") == 0
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3


def test_only_bad_scans_is_exit_code_3(infer_main, tmp_path):
    (tmp_path / "a.nii.gz").touch()
    assert infer_main("-i", tmp_path / "a.nii.gz") == 3


def test_inputs_that_would_overwrite_each_other(infer_main, tmp_path):
    with pytest.raises(UsageError, match="'a'"):
        infer_main("-i", tmp_path / "x" / "a.nii.gz", tmp_path / "y" / "a.nrrd")
    with pytest.raises(UsageError, match="No input"):
        infer_main()


def test_a_result_never_replaces_its_scan(infer_main, tmp_path):
    scan, _ = scan_and_label()
    path = tmp_path / "out" / "a.nii.gz"
    write_volume(scan, path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="replace the scan"):
        infer_main("-i", path)
    assert path.read_bytes() == before


def test_missing_model(infer_main, tmp_path):
    with pytest.raises(InputError, match="no model"):
        infer_main("-i", "x.nii.gz", "--model", tmp_path)


@pytest.mark.slow
def test_dicom_twins_give_the_same_segmentation(hips_dir):
    """Needs no trained model: any network must give the same femurs for a DICOM folder and its NIfTI twin."""
    config = Network((2, 2, 2, 2), (2, 2, 2), initialisation="he")
    preparation = Preparation(spacing_mm=(4.0, 4.0, 4.0), patch_size=(32, 32, 32))
    twin = Segmenter(TrainedModel(build_network(config, seed=1), config, preparation, {}, ""), overlap=0.0)
    for folder in sorted((hips_dir / "dicom").iterdir()):
        nifti = read_volume(hips_dir / "imagesTr" / f"{folder.name}_0000.nii.gz")
        dicom = read_volume(folder)
        assert dicom.geometry_difference(nifti) is None
        first, second = (twin(scan).labels.array for scan in (nifti, dicom))
        assert first.any()
        np.testing.assert_array_equal(first, second)
