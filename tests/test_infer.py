"""A scan in, a label map out: geometry, both femurs, batches, mistakes."""

import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from femur3d import cli, infer
from femur3d.config import Network, Preprocessing
from femur3d.engines import coarse_to_fine, selection
from femur3d.engines.backend import ENGINE
from femur3d.engines.selection import inference_engine
from femur3d.errors import InputError, UsageError
from femur3d.export import case_files, case_results
from femur3d.inference import quality
from femur3d.inference.mode import FAST, Mode
from femur3d.inference.quality_limits import Limit, write_limits
from femur3d.inference.saved_model import TrainedModel, load_model, weights_of
from femur3d.inference.segmenter import Segmenter
from femur3d.inference.sliding_window import SlidingWindow
from femur3d.io import images as volume_io
from femur3d.io.images import read_volume, write_volume
from femur3d.network.unet import build_network
from tests.support.dicom_series import write_scan, write_series
from tests.support.ellipsoids import scan_and_label
from tests.support.enhanced_mr import enhanced, frames_of, save
from tests.support.loaded_once import load_once, run_main
from tests.support.stand_in_engine import StandInEngine


@pytest.fixture(scope="module")
def model(threshold_model):
    return threshold_model


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(load_model(model), ENGINE)


@pytest.fixture
def infer_main(model, tmp_path, monkeypatch):
    """`main` of femur3d.infer with parsed flags."""
    load_once(monkeypatch)
    return functools.partial(run_main, "-o", tmp_path / "out", "--model", model)


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
    assert set(result.seconds) == {"preprocessing", "network", "postprocessing", "quality"}


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
    Segmenter(load_model(model), ENGINE, Mode(overlap=0.0))(
        scan, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (3 * 2 * 3, 18)


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_fast_mode_agrees_with_the_exact_one(model, segmenter, name):
    scan, _ = scan_and_label()
    quick = Segmenter(load_model(model), inference_engine(name), FAST)
    exact, fast = (s(scan, "sides") for s in (segmenter, quick))
    assert (exact.engine, fast.engine) == (ENGINE.name, name)
    assert name in fast.versions
    for value in (1, 2):
        assert dice(exact.labels.array == value, fast.labels.array == value) > 0.99


@pytest.mark.parametrize(("on_cpu", "any_shape", "looks"), [(True, True, 2), (False, True, 1), (True, False, 1)])
def test_fast_mode_looks_at_a_patch_twice_on_cpus(model, monkeypatch, on_cpu, any_shape, looks):
    """On JAX, whose functions know one shape, once."""
    monkeypatch.setattr(ENGINE, "on_cpu", lambda: on_cpu, raising=False)
    monkeypatch.setattr(ENGINE, "takes_any_shape", any_shape)
    monkeypatch.setattr(coarse_to_fine, "make_predict", lambda look, refine: 2)
    monkeypatch.setattr(ENGINE, "make_predict", lambda _: 1)
    assert ENGINE.prepare(load_model(model), FAST).predict == looks
    assert ENGINE.prepare(load_model(model), Mode()).predict == 1


def test_fast_mode_looks_closer_only_where_something_was_found(model):
    """One bright voxel in a corner of noise, and a network that finds bright voxels: most patches are passed over."""
    array = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    array[5, 5, 5] = 1000.0
    counts = []
    for mode in (dataclasses.replace(FAST, refine_above=None), FAST):
        seen = []
        engine = StandInEngine(lambda patches, seen=seen: (seen.append(1), (patches > 10).astype(np.float32))[1])
        segmenter = Segmenter(load_model(model), engine, mode)
        found, _ = segmenter._slide(array, (16, 16, 16), None)
        assert np.argwhere(found.probability > 0.5).tolist() == [[5, 5, 5]]
        counts.append(len(seen))
    assert counts == [7**3, 4**3]  # the other patches that hold the corner's voxel start at 8 or later


def test_out_of_memory_is_tried_again_with_smaller_patches(model):
    """Patches of 64³ are too much, 32³ are not; below that there is nothing left to try."""
    tried = []

    def predict(patches):
        tried.append(patches.shape[1:])
        if patches.shape[1] > limit:
            raise MemoryError
        return np.zeros_like(patches)

    segmenter = Segmenter(load_model(model), StandInEngine(predict))
    array = np.random.default_rng(0).standard_normal((70, 70, 70)).astype(np.float32)
    limit = 32
    found, patch_size = segmenter._slide(array, (64, 64, 64), None)
    assert (found.probability.shape, patch_size) == (array.shape, (32, 32, 32))
    assert tried[:2] == [(64, 64, 64), (32, 32, 32)]
    limit = 16
    with pytest.raises(MemoryError):
        segmenter._slide(array, (64, 64, 64), None)


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
    volumes = {"left": (written.array == 1).sum() * 0.125, "right": (written.array == 2).sum() * 0.125}
    assert summary["volumes_ml"] == pytest.approx(volumes)
    assert (summary["engine"], summary["device"]) == (ENGINE.name, ENGINE.device_name())
    assert summary["model"]["provenance"] == {"experiment": "threshold"}
    assert summary["files"] == ["a.nii.gz", "a_prob.nii.gz", "a_preview.png"]
    assert summary["notes"] == []
    stages = {"reading", "preprocessing", "network", "postprocessing", "quality", "writing", "total"}
    assert set(summary["seconds"]) == stages
    assert set(summary["quality"]) == set(quality.NAMES)
    assert all(set(flag) == {"value", "level", "sentence"} for flag in summary["quality"].values())
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
    assert "c.nrrd: every voxel" in errors
    assert "Traceback" not in errors
    assert {p.name for p in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "d.nii.gz"}
    before = (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns
    assert infer_main("-i", scans, "--continue") == 4
    assert (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns == before
    assert "skipped" in capsys.readouterr().out
    assert infer_main("-i", scans, "--continue", "--labels", "femur") == 4
    assert (tmp_path / "out" / "a.nii.gz").stat().st_mtime_ns > before  # other labels were asked for


def test_every_output_format(infer_main, tmp_path):
    """Meshes, Slicer's file and DICOM-SEG beside the label map, all named in one summary."""
    pytest.importorskip("highdicom", reason="pip install '.[dicomseg]'")
    series = tmp_path / "patient"
    scan, label = scan_and_label()
    write_scan(series, scan.with_array((10 * scan.array).astype(np.int16)))
    words = ("--labels", "sides", "--surface", "stl", "--segmentation", "--dicom_seg", "--rtstruct", "--format", "nrrd")
    assert infer_main("-i", series, *words) == 0
    out = tmp_path / "out"
    files = ["patient.nrrd", "patient_left.stl", "patient_right.stl", "patient.seg.nrrd"]
    files += ["patient.dcm", "patient_rtstruct.dcm"]
    assert json.loads((out / "patient.json").read_text())["files"] == files
    assert sorted(p.name for p in out.iterdir()) == sorted([*files, "patient.json"])
    wanted = case_files.Wanted("sides", ".nrrd", surface="stl", segmentation=True, dicom_seg=True, rtstruct=True)
    possible = case_files.possible_files(case_files.Case("patient", series, None, out), wanted)
    assert {p.name for p in possible} >= {*files, "patient.json"}
    assert {"numpy", "scipy", "simpleitk"} <= set(json.loads((out / "patient.json").read_text())["versions"])
    slicer = read_volume(out / "patient.seg.nrrd")
    np.testing.assert_array_equal(slicer.array, read_volume(out / "patient.nrrd").array)
    assert dice(slicer.array == 2, label.array == 2) > 0.9
    assert infer_main("-i", series, *words, "--continue") == 0
    (out / "patient_left.stl").unlink()  # a file that is missing is made again
    assert infer_main("-i", series, *words, "--continue") == 0
    assert (out / "patient_left.stl").exists()


def test_dicom_segmentation_of_a_scan_that_is_no_dicom_is_not_made_and_said_so(infer_main, tmp_path, capsys):
    pytest.importorskip("highdicom", reason="pip install '.[dicomseg]'")
    write_volume(scan_and_label()[0], tmp_path / "scan.nii.gz")
    assert infer_main("-i", tmp_path / "scan.nii.gz", "--dicom_seg", "--rtstruct") == 0
    said = capsys.readouterr().out
    assert "Note: no DICOM segmentation" in said
    assert "Note: no DICOM contours" in said
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_scan_without_femur_is_written_and_no_success(infer_main, tmp_path, capsys, monkeypatch):
    pytest.importorskip("highdicom", reason="pip install '.[dicomseg]'")
    scan, _ = scan_and_label()
    write_scan(tmp_path / "empty", scan.with_array((10 * scan.array).astype(np.int16)))
    monkeypatch.setattr(SlidingWindow, "look", SlidingWindow.count)
    words = ("--surface", "ply", "--segmentation", "--dicom_seg", "--rtstruct", "--preview")
    assert infer_main("-i", tmp_path / "empty", *words) == 4
    said = capsys.readouterr()
    assert "no femur found" in said.out
    assert "No femur was found in 1 of 1" in said.err
    summary = json.loads((tmp_path / "out" / "empty.json").read_text())
    assert summary["volumes_ml"] == {}
    assert summary["files"] == ["empty.nii.gz", "empty_preview.png", "empty.seg.nrrd"]
    assert all((tmp_path / "out" / name).exists() for name in summary["files"])
    assert infer_main("-i", tmp_path / "empty", *words, "--continue") == 4  # skipped, and no success either
    assert infer_main("-i", tmp_path / "empty", *words, "--continue", "--strict") == 5  # the model has no limits


def test_zip_of_scans(infer_main, tmp_path, capsys):
    scan, _ = scan_and_label()
    for name in ("a", "b"):
        write_volume(scan, tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "scans" / "c.nii.gz").write_bytes(b"no scan")
    shutil.make_archive(str(tmp_path / "scans"), "zip", tmp_path / "scans")
    assert infer_main("-i", tmp_path / "scans.zip") == 4
    assert {p.name for p in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz"}
    said = capsys.readouterr()
    assert "scans.zip/c.nii.gz" in said.err
    assert len(said.err.strip().splitlines()) == 2
    assert "2 segmented, 0 skipped, 1 failed" in said.out


def test_nifti_result_has_the_transforms_of_the_scan(infer_main, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    scan, _ = scan_and_label()
    image = nibabel.Nifti1Image(scan.array.T.astype(np.float32), np.diag([-5.0, -5.0, 5.0, 1.0]))
    image.set_sform(image.affine, code=4)
    image.set_qform(image.affine, code=2)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert infer_main("-i", tmp_path / "a.nii.gz") == 0
    header = nibabel.load(tmp_path / "out" / "a.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 2)
    np.testing.assert_array_equal(header.get_sform(), image.get_sform())


def test_fast_and_overlap_are_options_of_the_result(infer_main, tmp_path):
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "a.nii.gz")
    assert infer_main("-i", tmp_path / "a.nii.gz", "--fast", "--overlap", "0.25") == 0
    options = json.loads((tmp_path / "out" / "a.json").read_text())["options"]
    assert (options["dtype"], options["overlap"], options["skip_air"]) == ("bfloat16", 0.25, True)


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
    scan, _ = scan_and_label()
    for name in ("a.nii.gz", "a.nrrd"):
        write_volume(scan, tmp_path / name)
    with pytest.raises(UsageError, match=r"a\.nrrd"):
        infer_main("-i", tmp_path / "a.nii.gz", tmp_path / "a.nrrd")
    with pytest.raises(UsageError, match="No input"):
        infer_main()


@pytest.mark.parametrize("there", ["a.nii.gz", "a.json", "a_prob.nii.gz"])
def test_a_result_never_replaces_what_lies_beside_a_scan(infer_main, tmp_path, there):
    """Such as another scan of the same name, or a sidecar file."""
    out = tmp_path / "out"
    write_volume(scan_and_label()[0], out / "a.nrrd")
    (out / there).write_bytes(b"mine")
    with pytest.raises(UsageError, match="lies beside a scan"):
        infer_main("-i", out / "a.nrrd", "--probability")
    assert (out / there).read_bytes() == b"mine"
    (out / there).unlink()
    for _ in range(2):  # its own results may be replaced
        assert infer_main("-i", out / "a.nrrd", "--probability") == 0


def test_results_of_an_earlier_run_are_no_scans(infer_main, tmp_path, capsys):
    write_volume(scan_and_label()[0], tmp_path / "scans" / "a.mha")
    for folder in ("scans/first", "second", "scans"):
        assert infer_main("-i", tmp_path / "scans", "-o", tmp_path / folder, "--probability") == 0
        assert "[1/1]" in capsys.readouterr().out


def test_two_scans_whose_results_would_have_one_name(infer_main, tmp_path):
    scan, _ = scan_and_label()
    for name in ("x.nii.gz", "x_prob.nii.gz"):
        write_volume(scan, tmp_path / name)
    with pytest.raises(UsageError, match="separately"):
        infer_main("-i", tmp_path / "x.nii.gz", tmp_path / "x_prob.nii.gz", "--probability")


def test_results_of_another_scan_are_not_replaced(infer_main, tmp_path):
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "P1" / "t1.nii.gz")
    write_volume(scan.with_array(scan.array + 1), tmp_path / "P2" / "t1.nii.gz")
    assert infer_main("-i", tmp_path / "P1" / "t1.nii.gz") == 0
    with pytest.raises(UsageError, match=r"P1/t1\.nii\.gz lie there"):
        infer_main("-i", tmp_path / "P2" / "t1.nii.gz")
    assert infer_main("-i", tmp_path / "P4" / "t1.nii.gz") == 3  # no such file: that is what is wrong
    (tmp_path / "P1").rename(tmp_path / "P3")  # the same scan by another path
    assert infer_main("-i", tmp_path / "P3" / "t1.nii.gz") == 0


def test_continue_does_a_scan_again_that_has_changed(infer_main, tmp_path, capsys):
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "a.mha")
    assert infer_main("-i", tmp_path / "a.mha") == 0
    write_volume(dataclasses.replace(scan, array=scan.array[2:]), tmp_path / "a.mha")
    assert infer_main("-i", tmp_path / "a.mha", "--continue") == 0
    assert "skipped" not in capsys.readouterr().out
    assert read_volume(tmp_path / "out" / "a.nii.gz").array.shape == scan.array[2:].shape


def test_a_summary_never_tells_of_other_files(infer_main, tmp_path, monkeypatch, capsys):
    """Where writing fails half-way, the earlier results stay as they were, all of them."""
    write_volume(scan_and_label()[0], tmp_path / "a.mha")
    assert infer_main("-i", tmp_path / "a.mha") == 0

    def fails(*arguments):
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(case_results, "write_files", fails)
    assert infer_main("-i", tmp_path / "a.mha", "--labels", "femur") == 3
    assert "No space left" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("extension", ["nii.gz", "nii", "nrrd", "mha"])
def test_a_file_that_a_full_disk_cuts_short_is_an_error(infer_main, tmp_path, monkeypatch, capsys, extension):
    """SimpleITK's NIfTI and NRRD writers say nothing of it."""
    write_volume(scan_and_label()[0], tmp_path / "a.mha")
    write = volume_io.sitk.WriteImage

    def short(image, path, **options):
        write(image, path, **options)
        os.truncate(path, os.path.getsize(path) // 2)

    monkeypatch.setattr(volume_io.sitk, "WriteImage", short)
    assert infer_main("-i", tmp_path / "a.mha", "--format", extension) == 3
    assert "cannot be written" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_one_bad_input_or_name_does_not_stop_the_others(infer_main, tmp_path, capsys):
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "a.nii.gz")
    latin1 = os.path.join(os.fsencode(tmp_path), b"M\xfcller.nii.gz")
    shutil.copy(os.fsencode(tmp_path / "a.nii.gz"), latin1)
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "bad.zip", tmp_path / "empty", os.fsdecode(latin1), tmp_path / "a.nii.gz"]
    assert infer_main("-i", *given) == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert "bad.zip: the zip is damaged" in said[0]
    assert "empty: no scans in this folder" in said[2]
    assert "name is not in UTF-8" in said[4]
    assert (tmp_path / "out" / "a.nii.gz").exists()


def test_a_mistake_of_ours_in_one_scan_does_not_stop_the_others(infer_main, tmp_path, monkeypatch, capsys):
    scan, _ = scan_and_label()
    for name in ("a", "b"):
        write_volume(scan, tmp_path / "scans" / f"{name}.mha")
    done, really = [], case_results.write_files

    def first_fails(*arguments):
        done.append(arguments)
        return really(*arguments) if len(done) > 1 else {}["no such key"]

    monkeypatch.setattr(case_results, "write_files", first_fails)
    assert infer_main("-i", tmp_path / "scans") == 4
    said = capsys.readouterr().err.splitlines()
    assert "a.mha: KeyError: 'no such key'" in said[0]
    assert len(said) == 2
    assert (tmp_path / "out" / "b.json").exists()


def test_a_folder_that_cannot_be_written_to_is_told_before_any_work(infer_main, tmp_path):
    scan = tmp_path / "a.mha"
    write_volume(scan_and_label()[0], scan)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match=r"out: File exists\.\nExpected a folder"):
        infer_main("-i", scan)
    with pytest.raises(UsageError, match="UTF-8"):
        infer_main("-i", scan, "-o", os.fsdecode(os.path.join(os.fsencode(tmp_path), b"M\xfcller")))


def test_messages_of_the_network_name_the_scan(infer_main, tmp_path, capsys):
    scan, _ = scan_and_label()
    write_volume(dataclasses.replace(scan, array=scan.array[:3, :3, :3]), tmp_path / "a.mha")
    assert infer_main("-i", tmp_path / "a.mha") == 3
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path / 'a.mha'}: A scan of [15, 15, 15] mm")
    assert len(said.splitlines()) == 2


def test_a_result_never_replaces_its_scan(infer_main, tmp_path):
    scan, _ = scan_and_label()
    path = tmp_path / "out" / "a.nii.gz"
    write_volume(scan, path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="replace the scan"):
        infer_main("-i", path)
    assert path.read_bytes() == before


@pytest.fixture
def model_with_limits(model, tmp_path):
    """The model with a limit that no scan keeps (red), one that all do, and one between (yellow)."""
    folder = tmp_path / "limited"
    shutil.copytree(model, folder)
    limits = {
        "smallest_volume_ml": Limit(9e5, 8e5, 7e5),
        "missing_femurs": Limit(0.0, 0.5, 1.0),
        "uncertain_share": Limit(-2.0, -1.0, 1.0),
    }
    write_limits(folder, limits, "imagination")
    return folder


def test_links_out_of_a_folder_and_to_nowhere(infer_main, tmp_path, capsys):
    write_volume(scan_and_label()[0], tmp_path / "store" / "b.nii.gz")
    write_volume(scan_and_label()[0], tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "scans" / "P2").symlink_to(tmp_path / "store")
    assert infer_main("-i", tmp_path / "scans") == 0
    assert "Note: " in (said := capsys.readouterr().out)
    assert "a link leads out of this folder, passed over without --follow_links (P2)\n" in said
    (tmp_path / "scans" / "c.nii.gz").symlink_to("gone")
    assert infer_main("-i", tmp_path / "scans", "--follow_links") == 4
    said = capsys.readouterr()
    assert "2 segmented, 0 skipped, 1 failed" in said.out
    assert said.err.startswith(f"{tmp_path}/scans/c.nii.gz: a link that leads nowhere (to gone).\n")
    assert (tmp_path / "out" / "b.nii.gz").exists()


def test_flags_may_be_written_with_dashes():
    words = ["--follow-links", "--nofollow-links", "--dicom-seg=true", "--in-put", "-i", "a-b", "--", "--x-y"]
    expected = ["--follow_links", "--nofollow_links", "--dicom_seg=true", *words[3:]]
    assert list(map(cli._with_underscores, words)) == expected


def test_a_second_series_does_not_replace_the_first(infer_main, tmp_path):
    scan, _ = scan_and_label()
    for number in (1, 2):
        own = scan.with_array((scan.array * number).astype(np.int16))
        write_series(tmp_path / "A", own, uid=f"1.2.{number}", number=number)
    for number in (2, 1):
        assert infer_main("-i", tmp_path / "A", "--series", number) == 0
        assert json.loads((tmp_path / "out" / f"A_series{number}.json").read_text())["series"] == number
    assert (tmp_path / "out" / "A_series2.nii.gz").exists()


@pytest.fixture
def two_models(model, tmp_path, monkeypatch):
    """Stand for 'auto': the first flags every femur red, the second none."""
    folders = [shutil.copytree(model, tmp_path / name) for name in ("first", "second")]
    for folder, red in zip(folders, (1e6, 0.0), strict=True):
        write_limits(folder, {"smallest_volume_ml": Limit(3e6, 2e6, red)}, "made up")
        config = json.loads((folder / "config.json").read_text())
        config.pop("config_sha256")
        config["provenance"]["made"] = folder.name
        (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(infer, "find_models", lambda name: folders if name == "auto" else [tmp_path / name])
    return folders


def test_where_the_first_models_flags_are_red_the_second_is_taken_and_it_is_said(
    infer_main, two_models, tmp_path, capsys
):
    write_volume(scan_and_label()[0], tmp_path / "a.mha")
    words = ("-i", tmp_path / "a.mha", "--model", "auto")
    assert infer_main("-i", tmp_path / "a.mha", "--model", "first") == 0
    assert infer_main(*words, "--continue") == 0  # the first model's alone is no choice
    said = capsys.readouterr().out
    assert "Model first, or second on" in said
    assert "Model second was taken: first has 1 red and 0 yellow flags; second has 0 red and 1 yellow flags" in said
    summary = json.loads((tmp_path / "out" / "a.json").read_text())
    assert summary["choice"]["taken"] == summary["model"]["provenance"]["made"] == "second"
    assert infer_main(*words, "--continue") == 0
    assert "1 of 1 scans are done already" in capsys.readouterr().out
    summary["choice"]["tried"][0] = "0" * 64  # the model that lost has been replaced since
    (tmp_path / "out" / "a.json").write_text(json.dumps(summary))
    assert infer_main(*words, "--continue") == 0
    assert "are done already" not in capsys.readouterr().out
    for choice in ("words", {"tried": 5}, {"tried": [["a list"]]}):  # whatever somebody has written there
        (tmp_path / "out" / "a.json").write_text(json.dumps({**summary, "choice": choice}))
        assert infer_main(*words, "--continue") == 0
        assert "are done already" not in capsys.readouterr().out
    assert infer_main("-i", tmp_path / "a.mha", "--model", "first", "--continue") == 0
    summary = json.loads((tmp_path / "out" / "a.json").read_text())
    assert (summary["model"]["provenance"]["made"], summary.get("choice")) == ("first", None)
    write_limits(two_models[0], {"smallest_volume_ml": Limit(3e6, 2e6, 0.0)}, "made up")
    assert infer_main("-i", tmp_path / "a.mha", "--model", "first") == 0
    capsys.readouterr()
    assert infer_main(*words, "--continue") == 0  # as earlier versions wrote it: it would be kept
    assert "1 of 1 scans are done already" in capsys.readouterr().out


def test_continue_knows_scans_of_a_cohort_that_grew_was_split_or_had_other_names(infer_main, tmp_path, capsys):
    """Results keep the name that they have, if their scan is at its place and has its content."""
    scan, _ = scan_and_label()
    for patient in ("P1", "P2"):
        (tmp_path / "scans" / patient).mkdir(parents=True)
        write_series(tmp_path / "scans" / patient / "s", scan.with_array(scan.array.astype(np.int16)))
    assert infer_main("-i", tmp_path / "scans" / "P1") == 0
    os.rename(tmp_path / "out" / "s.nii.gz", tmp_path / "out" / "old.nii.gz")
    summary = json.loads((tmp_path / "out" / "s.json").read_text())
    (tmp_path / "out" / "old.json").write_text(json.dumps({**summary, "files": ["old.nii.gz"]}))
    (tmp_path / "out" / "s.json").unlink()
    for path, done in (("scans", 1), ("scans/P2", 1), ("scans", 2)):
        capsys.readouterr()
        assert infer_main("-i", tmp_path / path, "--continue") == 0
        assert re.search(rf"^{done} of \d scans are done already", capsys.readouterr().out, re.MULTILINE)
        assert {file.stem for file in (tmp_path / "out").glob("*.json")} == {"old", "P2_s"}
    shutil.rmtree(tmp_path / "scans" / "P1" / "s")
    write_series(tmp_path / "scans" / "P1" / "s", scan.with_array((2 * scan.array).astype(np.int16)))
    assert infer_main("-i", tmp_path / "scans", "--continue") == 0
    assert (tmp_path / "out" / "P1_s.json").exists()


def test_a_name_that_is_too_long_for_the_results_is_found_before_any_work(infer_main, tmp_path, capsys, monkeypatch):
    """230 bytes and .nii.gz are 237; while it is written 18 stand before that."""
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "scans" / f"{'é' * 115}.nii")
    write_volume(scan, tmp_path / "scans" / f"{'n' * 231}.nii")
    os.rename(tmp_path / "scans" / f"{'n' * 231}.nii", tmp_path / "scans" / f"{'n' * 242}.nii")
    assert infer_main("-i", tmp_path / "scans") == 4
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith(".nii: a name of 242 bytes is too long for the results.")
    assert said[1:] == [f"Rename it: 230 bytes are free in {tmp_path}/out."]
    assert (tmp_path / "out" / f"{'é' * 115}.nii.gz").exists()
    assert infer_main("-i", tmp_path / "scans", "--preview", "--continue") == 3


def test_a_multi_frame_file_gets_a_dicom_segmentation(infer_main, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    scan, _ = scan_and_label()
    save(enhanced(frames_of(scan.with_array(scan.array.astype(np.int16)))), tmp_path / "hip.dcm")
    assert infer_main("-i", tmp_path / "hip.dcm", "--dicom_seg") == 0
    assert json.loads((tmp_path / "out" / "hip.json").read_text())["files"] == ["hip.nii.gz", "hip.dcm"]
    assert pydicom.dcmread(tmp_path / "out" / "hip.dcm").Modality == "SEG"


def test_a_map_with_voxels_that_are_no_number_is_refused(model):
    engine = StandInEngine(lambda patches: np.where(patches > 0, np.nan, 0).astype(np.float32))
    with pytest.raises(InputError, match=r"gave no number for \d+ of \d+ voxels\.\n"):
        Segmenter(load_model(model), engine)(scan_and_label()[0])


def test_finite_weights_that_overflow_are_refused(model):
    trained = load_model(model)
    for variable in trained.network.trainable_variables:
        variable.assign(np.full(variable.shape, 1e30))
    with pytest.raises(InputError, match="weights that are beyond float32 at inference"):
        Segmenter(trained, ENGINE)(scan_and_label()[0])


def test_strict_ends_in_5_where_a_flag_is_red_and_writes_all_the_same(infer_main, model_with_limits, tmp_path, capsys):
    write_volume(scan_and_label()[0], tmp_path / "a.nii.gz")
    words = ("-i", tmp_path / "a.nii.gz", "--model", model_with_limits)
    assert infer_main(*words) == 0
    said = capsys.readouterr()
    sentence = r"The smaller femur has \d+ ml \(median 900000 ml, red below 700000 ml\)\."
    assert re.search(f"^  Red flag: {sentence}$", said.out, re.MULTILINE)
    assert said.out.count("Yellow flag: ") == 1
    assert said.out.count(" flag: ") == 2
    found = json.loads((tmp_path / "out" / "a.json").read_text())["quality"]
    levels = {name: flag["level"] for name, flag in found.items() if flag["level"] != "unknown"}
    assert levels == {"smallest_volume_ml": "red", "missing_femurs": "green", "uncertain_share": "yellow"}
    assert infer_main(*words, "--strict", "--continue") == 5  # also for a scan that was done before
    assert "1 with a red flag" in capsys.readouterr().err
    (tmp_path / "out" / "a.nii.gz").unlink()
    assert infer_main(*words, "--strict") == 5
    assert read_volume(tmp_path / "out" / "a.nii.gz").array.any()


def test_strict_is_content_without_red_flags_and_failures_come_first(infer_main, model_with_limits, tmp_path, capsys):
    write_volume(scan_and_label()[0], tmp_path / "scans" / "a.nii.gz")
    assert infer_main("-i", tmp_path / "scans", "--strict") == 0  # a model without limits
    assert "flag" not in capsys.readouterr().out
    (tmp_path / "scans" / "b.nii.gz").touch()
    assert infer_main("-i", tmp_path / "scans", "--strict", "--model", model_with_limits) == 4


def test_damaged_limits_are_a_mistake_of_the_model(infer_main, model_with_limits, tmp_path):
    (model_with_limits / "quality.json").write_text("[]")
    write_volume(scan_and_label()[0], tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"quality\.json"):
        infer_main("-i", tmp_path / "a.nii.gz", "--model", model_with_limits)


def test_quality_of_a_good_and_of_an_empty_result(segmenter):
    scan, _ = scan_and_label()
    good = segmenter(scan, "sides")
    values = {name: flag.value for name, flag in good.quality.items()}
    assert values["missing_femurs"] == 0
    assert values["side_ratio"] > 0.9
    assert values["head_disagreement"] == 1  # the threshold network has no other heads: they find nothing
    assert not good.needs_a_look
    one = segmenter(dataclasses.replace(scan, array=np.where(np.arange(40) < 20, scan.array, 100)), "sides")
    assert "side_ratio" not in one.quality
    assert one.quality["smallest_volume_ml"].value == pytest.approx(values["smallest_volume_ml"], rel=0.1)


def test_heads_are_not_measured_where_memory_runs_out(segmenter, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(segmenter, "_prepared", dataclasses.replace(segmenter._prepared, predict_heads=fail))
    found = segmenter(scan_and_label()[0]).quality
    assert set(found) == set(quality.NAMES) - {"head_disagreement"}


def test_missing_model(infer_main, tmp_path):
    with pytest.raises(InputError, match="no model"):
        infer_main("-i", "x.nii.gz", "--model", tmp_path)


@pytest.mark.slow
def test_dicom_twins_give_the_same_segmentation(hips_dir):
    """Needs no trained model: any network must give the same femurs for a DICOM folder and its NIfTI twin."""
    config = Network((2, 2, 2, 2), (2, 2, 2), initialisation="he")
    preprocessing = Preprocessing(spacing_mm=(4.0, 4.0, 4.0), patch_size=(32, 32, 32))
    twin = Segmenter(
        TrainedModel(weights_of(build_network(config, seed=1)), config, preprocessing, {}, ""),
        ENGINE,
        Mode(overlap=0.0),
    )
    for folder in sorted((hips_dir / "dicom").iterdir()):
        nifti = read_volume(hips_dir / "imagesTr" / f"{folder.name}_0000.nii.gz")
        dicom = read_volume(folder)
        assert dicom.geometry_difference(nifti) is None
        first, second = (twin(scan).labels.array for scan in (nifti, dicom))
        assert first.any()
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("package", ["matplotlib", "jax"])
def test_start_up_leaves_a_package_to_those_who_use_it(package, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    code = f"import sys, femur3d.infer; early = {package!r} in sys.modules; import {package}; sys.exit(early)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("backend", "file", "expected"),
    [
        ("jax", "", True),
        ("tensorflow", "jax", False),
        ("", "jax", True),
        ("", "tensorflow", False),
        ("", "", False),
    ],
)
def test_jax_is_there_where_it_computes(monkeypatch, tmp_path, backend, file, expected):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if file:
        (tmp_path / "keras.json").write_text(json.dumps({"backend": file}))
    assert ("jax" not in selection.idle_libraries()) == expected


def test_ctrl_c_during_start_up_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as caught, cli.starting():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_worker_of_a_cluster_loads_a_model_again_that_was_trained_anew(monkeypatch):
    weights, loaded = ["first"], []

    def load(folders):
        loaded.append(weights[0])
        return SimpleNamespace(steps=lambda: None)

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(infer, "_load", load)
    monkeypatch.setattr(infer, "state", lambda folder: weights[0])
    monkeypatch.setattr(infer, "segment_all", lambda *args: (0, 1))
    segment_one = infer.prepare(["femur3d.infer", "-i", "scan.nii.gz", "-o", "out", "--model", "hip_t1"])
    assert [segment_one(None, None), segment_one(None, None)] == [(0, 1)] * 2
    weights[0] = "second"
    assert segment_one(None, None) == (0, 1)
    assert loaded == ["first", "second"]


def test_scans_are_segmented_where_nobody_reads_from_the_start(infer_main, tmp_path, monkeypatch):
    """The notes on the folder, the part, the model, what is skipped: the pipe has no reader when they are said."""
    scan, _ = scan_and_label()
    for name in ("a", "b"):
        write_volume(scan, tmp_path / f"in/{name}.nii.gz")
    for options in ([], ["--continue"], ["--part", "1/1"]):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as deaf:
            monkeypatch.setattr(sys, "stdout", deaf)
            assert infer_main("-i", tmp_path / "in", *options) == 0
            deaf.flush()
    assert {"a.nii.gz", "a.json", "b.nii.gz", "b.json"} <= set(os.listdir(tmp_path / "out"))
