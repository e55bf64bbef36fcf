import json
import os
import shutil

import h5py
import numpy as np
import pytest

from femur3d.config import IGNORED
from femur3d.data import packing
from femur3d.data.augmentation import variant
from femur3d.data.nnunet_dataset import find_cases
from femur3d.data.packed_dataset import Entry, PackedDataset, create_packed_file
from femur3d.data.packing import describe_packing, pack_dataset, pack_once
from femur3d.errors import InputError
from femur3d.io.atomic import SEAL_BYTES, seal
from femur3d.io.images import read_volume, write_volume
from femur3d.io.settings import with_settings
from femur3d.volume import Volume
from tests.support.ellipsoids import write_dataset


def test_training_volumes_have_their_variants_and_validation_none(packed_file):
    with PackedDataset(packed_file) as packed:
        assert packed.dataset.startswith("ellipsoids")
        assert len(packed.entries) == 2 * 2 * 2 + 2
        assert len(packed.select("train")) == 8
        assert len(packed.select("train", [6])) == 4
        assert [packed.entries[i].case for i in packed.select("val")] == ["case_2", "case_2"]
        assert packed.entries[0] == Entry("case_0", 1, 0, "train", "case_0_0000.nii.gz")


def test_ten_images_become_eighty(tmp_path, tiny_experiment):
    folder = write_dataset(tmp_path / "d", cases=5, validation=0)  # two hips each
    experiment = with_settings(tiny_experiment, ["training.variants=(0, 1, 2, 3, 4, 5, 6, 7)"])
    assert pack_dataset(folder, tmp_path / "p.h5", experiment, lambda name: None) == 80


def test_variants_are_those_of_the_first(packed_file):
    with PackedDataset(packed_file) as packed:
        for number, entry in enumerate(packed.entries):
            if entry.variant:
                first, mirrored = packed.read_volume(number - 1), packed.read_volume(number)
                for a, b in zip(first, mirrored, strict=True):
                    np.testing.assert_array_equal(variant(a.array, entry.variant), b.array)


def test_patch_is_part_of_the_volume_and_femur_voxels_are_femur(packed_file):
    with PackedDataset(packed_file) as packed:
        image, label = packed.read_volume(3)
        patch, patch_label = packed.read_patch(3, (1, 2, 3), (16, 8, 4))
        np.testing.assert_array_equal(patch, image.array[1:17, 2:10, 3:7])
        np.testing.assert_array_equal(patch_label, label.array[1:17, 2:10, 3:7])
        assert label.array[tuple(packed.femur_voxels(3).T)].all()
        assert patch.dtype == np.float16


def test_of_a_large_femur_some_different_voxels_are_noted(tmp_path):
    label = np.ones((20, 20, 20), np.uint8)
    label[:10] = 0
    label[:, :, 19] = IGNORED
    label = np.tile(label, (2, 1, 1))
    with create_packed_file(tmp_path / "p.h5", "d", {}) as writer:
        writer.add(Entry("a", 1, 0, "train", "a.nii"), np.zeros(label.shape), label, Volume(label))
    with PackedDataset(tmp_path / "p.h5") as packed:
        voxels = packed.femur_voxels(0)
    assert (label == 1).sum() == 7600
    assert len(np.unique(voxels, axis=0)) == len(voxels) == 4096
    assert (label[tuple(voxels.T)] == 1).all()


def test_volumes_are_contiguous(packed_file):
    with h5py.File(packed_file) as file:
        assert file["volumes/00000/image"].chunks is None


def spoil(folder, case, change):
    """Rewrites the image or label of a case as `change` makes it."""
    paths = next(c for c in find_cases(folder) if c.name == case)
    scan, label = read_volume(paths.image), read_volume(paths.label)
    for volume, path, new in zip((scan, label), (paths.image, paths.label), change(scan, label), strict=True):
        if new is not volume:
            write_volume(new, path)


def shifted(volume):
    return type(volume)(volume.array, volume.spacing_mm, (0.0, 0.0, 0.0), volume.direction)


def poked(volume, value):
    array = volume.array.copy()
    array[3, 3, 3] = value
    return volume.with_array(array)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s, m: (s, shifted(m)), "origin"),
        (lambda s, m: (poked(s, np.nan), m), "(?i)nan"),
        (lambda s, m: (s, poked(m, 7)), "7"),
        (lambda s, m: (s, m.with_array(np.zeros_like(m.array))), "(?i)empty|no voxel|background"),
    ],
)
def test_wrong_dataset_is_refused_and_nothing_is_left(tmp_path, tiny_experiment, change, found):
    folder = write_dataset(tmp_path / "d")
    spoil(folder, "case_1", change)
    with pytest.raises(InputError, match=found) as caught:
        pack_dataset(folder, tmp_path / "out" / "p.h5", tiny_experiment, lambda name: None)
    assert "case_1" in str(caught.value)
    assert str(caught.value).count("\n") <= 1
    assert list((tmp_path / "out").iterdir()) == []


def relabelled(folder, names, value):
    """A dataset whose last label has another name, and a block of it beside the femurs in every case."""
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **names}}))

    def block(scan, label):
        array = label.array.copy()
        array[10:20, 12:18, 18:20] = value  # touches no femur: their centres lie at x = 10 and 29
        return scan, label.with_array(array)

    for case in find_cases(folder):
        spoil(folder, case.name, block)
    return folder


def test_ignored_voxels_are_marked_and_no_femur(tmp_path, tiny_experiment, packed_file):
    folder = relabelled(write_dataset(tmp_path / "d"), {"femur_left": 1, "femur_right": 2, "ignore": 3}, 3)
    wide = with_settings(tiny_experiment, ["preprocessing.margin_mm=30"])
    assert pack_dataset(folder, tmp_path / "p.h5", wide, lambda name: None) == 10
    with PackedDataset(tmp_path / "p.h5") as packed:
        _, label = packed.read_volume(0)
        assert set(np.unique(label.array)) == {0, 1, IGNORED}
        assert (label.array == IGNORED).sum() == 10 * 6 * 2
        assert (label.array[tuple(packed.femur_voxels(0).T)] == 1).all()
    assert {1, 2} == {e.label_value for e in packed.entries}


def test_labels_that_are_no_femur_are_refused_or_left_out_by_name(tmp_path, tiny_experiment):
    names = {"femur_left": 1, "femur_right": 2, "acetabulum": 3}
    folder = relabelled(write_dataset(tmp_path / "d"), names, 3)
    with pytest.raises(InputError, match="acetabulum"):
        pack_dataset(folder, tmp_path / "p.h5", tiny_experiment, lambda name: None)
    chosen = ["femur_left", "femur_right"]
    pack_dataset(folder, tmp_path / "p.h5", tiny_experiment, lambda name: None, femur_labels=chosen)
    with PackedDataset(tmp_path / "p.h5") as packed:
        assert {e.label_value for e in packed.entries} == {1, 2}
        assert all(packed.read_volume(i)[1].array.max() == 1 for i in range(len(packed.entries)))
    assert "acetabulum" in describe_packing(folder, femur_labels=chosen)


def test_the_fold_says_who_validates(tmp_path, tiny_experiment):
    folder = write_dataset(tmp_path / "d")
    splits = [{"train": ["case_0", "case_1"], "val": ["case_2"]}, {"train": ["case_2"], "val": ["case_0"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    pack_dataset(folder, tmp_path / "p.h5", tiny_experiment, lambda name: None, fold=1)
    with PackedDataset(tmp_path / "p.h5") as packed:
        assert packed.fold == 1
        assert {(e.case, e.split) for e in packed.entries} == {("case_2", "train"), ("case_0", "val")}
    assert describe_packing(folder, 1) == "fold 1 of 2 (splits_final.json): 1 cases train, 1 validate"
    with pytest.raises(InputError, match="no fold 2"):
        describe_packing(folder, 2)
    (folder / "splits_final.json").unlink()
    with pytest.raises(InputError, match="no fold 1"):
        describe_packing(folder, 1)


def test_voxels_that_are_not_finite_are_not_packed_and_stop_a_patch(tmp_path, packed_file):
    image, label = np.zeros((4, 4, 4)), np.ones((4, 4, 4), np.uint8)
    grid = Volume(image)
    for wrong in (np.nan, 1e5):  # 1e5 is beyond float16
        with pytest.raises(InputError, match="case a"), create_packed_file(tmp_path / "p.h5", "d", {}) as writer:
            writer.add(Entry("a", 1, 0, "train", "a.nii"), np.full_like(image, wrong), label, grid)
    with pytest.raises(InputError, match="other than"), create_packed_file(tmp_path / "p.h5", "d", {}) as writer:
        writer.add(Entry("a", 1, 0, "train", "a.nii"), image, label * 2, grid)
    with PackedDataset(packed_file) as packed:
        packed._images[0] = np.full(packed.shape(0), np.inf, np.float16)
        with pytest.raises(InputError, match="case case_0: intensities are not finite"):
            packed.read_patch(0, (0, 0, 0), (8, 8, 8))


def unsealed(packed_file, path):
    """The file as earlier versions wrote it: without the SHA-256 behind its end."""
    path.write_bytes(packed_file.read_bytes()[:-SEAL_BYTES])
    return path


def test_voxels_of_a_file_of_an_earlier_version_are_compared_with_their_hash(tmp_path, packed_file):
    path = unsealed(packed_file, tmp_path / "old.h5")
    PackedDataset(path).close()
    with h5py.File(path, "r+") as file:
        file["volumes/00003/image"][2, 2, 2] = np.nan
    with pytest.raises(InputError, match="not those that were written"):
        PackedDataset(path)


def test_femur_too_small_to_be_seen_is_an_error(tmp_path, tiny_experiment):
    def speck(scan, label):
        array = np.where(label.array == 2, 0, label.array)
        array[3, 3, 3] = 2
        return scan, label.with_array(array)

    folder = write_dataset(tmp_path / "d")
    spoil(folder, "case_1", speck)
    coarse = with_settings(
        tiny_experiment, ["preprocessing.spacing_mm=(3.9, 3.9, 3.9)", "preprocessing.patch_size=(8,8,8)"]
    )
    with pytest.raises(InputError, match=r"case_1: label 2 has too few voxels"):
        pack_dataset(folder, tmp_path / "p.h5", coarse, lambda name: None)


def test_missing_label_and_too_large_a_patch(tmp_path, tiny_experiment):
    folder = write_dataset(tmp_path / "d")
    large = with_settings(tiny_experiment, ["preprocessing.patch_size=(48, 48, 48)"])
    with pytest.raises(InputError, match=r"case_0.*less than a patch"):
        pack_dataset(folder, tmp_path / "p.h5", large, lambda name: None)
    (folder / "labelsTr" / "case_0.nii.gz").unlink()
    with pytest.raises(InputError, match="case_0"):
        pack_dataset(folder, tmp_path / "p.h5", tiny_experiment, lambda name: None)
    assert not (tmp_path / "p.h5").exists()


def test_a_patch_has_to_fit_in_the_turned_volumes_too(tmp_path, tiny_experiment):
    """Of 36×25×22 voxels 16×24×16 are a part, of the same turned by 90° they are not."""
    folder = write_dataset(tmp_path / "d")
    settings = ["preprocessing.margin_mm=12", "preprocessing.patch_size=(16, 24, 16)"]
    upright, turned = (
        with_settings(tiny_experiment, [*settings, f"training.variants={v}"]) for v in ("(0, 6)", "(0, 7)")
    )
    assert pack_dataset(folder, tmp_path / "p.h5", upright, lambda name: None) == 10
    with PackedDataset(tmp_path / "p.h5") as packed:
        assert packed.shape(0)[1:] == (25, 22)
    with pytest.raises(InputError, match=r"case_0: .*, 22, 25\) voxels \(z, y, x\) when turned by 90°, less than") as e:
        pack_dataset(folder, tmp_path / "q.h5", turned, lambda name: None)
    assert str(e.value).count("\n") == 1


def test_files_that_are_not_packed_datasets(tmp_path, packed_file):
    with pytest.raises(InputError, match="no such file"):
        PackedDataset(tmp_path / "none.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(InputError, match="not a readable HDF5"):
        PackedDataset(tmp_path / "empty.h5")
    (tmp_path / "cut.h5").write_bytes(packed_file.read_bytes()[:5000])
    with pytest.raises(InputError):
        PackedDataset(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="not a packed dataset"):
        PackedDataset(tmp_path / "other.h5")


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual", "cycle"])
def test_nothing_may_point_out_of_the_file(tmp_path, packed_file, kind):
    path = tmp_path / "p.h5"
    shutil.copy(packed_file, path)
    with h5py.File(path, "a") as file:
        if kind == "soft":
            file["volumes/link"] = h5py.SoftLink("/volumes/00000")
        elif kind == "external":
            file["volumes/link"] = h5py.ExternalLink(str(packed_file), "/volumes/00000")
        elif kind == "cycle":
            file["volumes/again"] = file["/"]
        elif kind == "storage":
            file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)])
        else:
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource(str(packed_file), "x", (4,))
            file.create_virtual_dataset("x", layout)
    with pytest.raises(InputError, match=r"elsewhere|outside"):
        PackedDataset(path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("femur_voxels", {"data": np.ones((4097, 3), np.int32)}),
        ("femur_voxels", {"chunks": True, "fillvalue": 1}),
        ("image", {}),
        ("label", {"compression": "gzip"}),
    ],
)
def test_arrays_larger_than_what_is_written_of_them(tmp_path, packed_file, name, more):
    path = unsealed(packed_file, tmp_path / "p.h5")
    with h5py.File(path, "r+") as file:
        group = file["volumes/00000"]
        shape, dtype = group[name].shape, group[name].dtype
        del group[name]
        group.create_dataset(name, **({} if "data" in more else {"shape": shape, "dtype": dtype}), **more)
    seal(path)
    with pytest.raises(InputError, match="damaged"):
        PackedDataset(path)


def test_a_dataset_is_packed_once_for_all_trainings(tmp_path, tiny_experiment, monkeypatch):
    folder, said = write_dataset(tmp_path / "d"), []

    def pack(experiment=tiny_experiment, **more):
        with pack_once(folder, tmp_path / "cache", experiment, said.append, **more) as packed:
            return packed.path, packed.content, sum(line.startswith("Packing") for line in said)

    path, content, _ = pack()
    for name in (".writing-abc-d_1.h5", f".{path.name}.lock"):  # what killed processes left
        (tmp_path / "cache" / name).touch()
    assert pack(with_settings(tiny_experiment, ["training.rate=0.5"])) == (path, content, 1)
    assert pack(femur_labels=["femur_right", "femur_left"]) == (path, content, 1)
    path.write_bytes(path.read_bytes()[:-100])
    assert pack() == (path, content, 2)
    finer = pack(with_settings(tiny_experiment, ["preprocessing.spacing_mm=(1.9, 2, 2)", "training.variants=(0,)"]))
    one = pack(femur_labels=["femur_left"])
    assert finer[2] == 3
    assert one[2] == 4
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {".lock", path.name, finer[0].name, one[0].name}
    with PackedDataset(one[0]) as packed:
        assert packed.femur_labels == ("femur_left",)
    monkeypatch.setattr(packing, "__version__", "another")
    assert pack()[2] == 5


def test_a_case_that_moves_to_the_other_side_of_the_split_is_other_data(tmp_path, tiny_experiment):
    """Without turned variants the volumes are the same ones in the same order."""
    folder, found = write_dataset(tmp_path / "d"), []
    experiment = with_settings(tiny_experiment, ["training.variants=(0,)"])
    for train in (["case_0", "case_1"], ["case_0"], ["case_0", "case_1"]):
        split = {"train": train, "val": [name for name in ("case_1", "case_2") if name not in train]}
        (folder / "splits_final.json").write_text(json.dumps([split]))
        pack_dataset(folder, tmp_path / "p.h5", experiment, lambda name: None)
        with PackedDataset(tmp_path / "p.h5") as packed:
            found.append((packed.content, packed.data))
    assert found[0] == found[2]
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions of POSIX, which root has not")
def test_a_cache_that_cannot_be_written(tmp_path, dataset_dir, tiny_experiment):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(InputError, match="--packed_cache"):
        pack_once(dataset_dir, tmp_path / "cache" / "x", tiny_experiment, print)


def test_a_cache_that_is_a_file(tmp_path, dataset_dir, tiny_experiment):
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="--packed_cache"):
        pack_once(dataset_dir, tmp_path / "cache", tiny_experiment, print)
