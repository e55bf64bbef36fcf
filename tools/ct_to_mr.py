"""Makes MR-like scans with femur labels from a CT of both hips, in nnU-Net's layout: examples of any contrast.

    python -m tools.ct_to_mr --ct ct.nii.gz --heads=-96,-5,82,96,-2,83 -o data/ct_mr --cases 10
        [--patients hips --patients phantoms --validate hip_07,hip_19] [--check label.nii.gz]

The label is made from the CT: a watershed between the femoral heads, whose centres `--heads` names roughly, and the
pelvis. Every case is bent and scaled another way, gives air, fat, muscle, fluid, marrow and cortex a random intensity,
the CT's texture, a direction and thickness of its slices. Below the CT the thighs go on as its lowest slices, mirrored,
to a random end. --patients links the cases of other datasets beside them, to be trained on together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from absl import flags
from scipy import ndimage

from femur3d import cli
from femur3d.data.nnunet_dataset import CasePaths, find_cases, read_labels
from femur3d.data.preprocessing import cut, orient, resample_image, resample_mask
from femur3d.errors import UsageError
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.io.images import read_volume, write_volume
from femur3d.volume import Volume
from tools.label_ct import label_femurs

FLAGS = flags.FLAGS
LABELS = {"background": 0, "femur_left": 1, "femur_right": 2}
GRID_MM = (1.0, 1.0, 1.0)
REPEATED_MM = 12  # lowest slices that go on below the CT, mirrored
KNOTS_MM, BENT_MM, SCALED = 60, 12.0, 0.12  # between the knots of a bend; displaced there (5 mm when smoothed); scaled
GREY = 1 / 3  # of the random contrasts have marrow about as grey as the body's mean, and darker sides


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Intensities of the tissues, 0 to 1, and what else makes an image of them.

    Attributes:
        texture: what a Hounsfield unit of the CT's texture adds.
        mottle: how much red and yellow marrow differ.
        shading: how much darker the body's sides are than its middle, in parts: 0 to less than 1.
    """

    air: float = 0.0
    fat: float = 1.0
    muscle: float = 0.3
    fluid: float = 0.2
    marrow: float = 0.8
    cortex: float = 0.05
    texture: float = 0.001
    mottle: float = 0.1
    shading: float = 0.0


# What an axial T2-weighted scan looks like whose marrow is as grey as the body's mean: kept to test with, unless
# --all_contrasts.
AXIAL_T2 = Contrast(0.02, 1.0, 0.22, 1.0, 0.5, 0.05, 0.0008, 0.08, 0.6)


def random_contrast(rng: np.random.Generator, like_held_out: bool = False) -> Contrast:
    """Any order of the tissues, those like AXIAL_T2 only if `like_held_out`; air and cortex are dark."""
    grey = rng.random() < GREY
    while True:
        fat, muscle, fluid, marrow = rng.uniform(0.1, 1.0, 4)
        if grey:
            marrow = (fat + muscle) / 2 * rng.uniform(0.8, 1.2)
        if abs(fat - marrow) < 0.08 and abs(fat - muscle) < 0.08:
            continue  # nothing to see
        if like_held_out or not is_held_out(fat, muscle, marrow):
            break
    air, cortex, shading = rng.uniform(0, 0.04), rng.uniform(0, 0.12), rng.uniform(0.3 if grey else 0.0, 0.7)
    numbers = (air, fat, muscle, fluid, marrow, cortex, rng.uniform(0, 0.0015), rng.uniform(0, 0.25), shading)
    return Contrast(*(float(n) for n in numbers))


def is_held_out(fat: float, muscle: float, marrow: float) -> bool:
    """Whether a contrast is like AXIAL_T2: dark muscle, marrow half as bright as fat."""
    return muscle < 0.35 * fat and 0.42 * fat < marrow < 0.58 * fat


def go_on_below(array: np.ndarray, slices: int) -> np.ndarray:
    """The array (z, y, x) with so many slices more below its first: the lowest ones mirrored, again and again."""
    more = np.pad(array[:REPEATED_MM], ((slices, 0), (0, 0), (0, 0)), mode="reflect")[:slices]
    return np.concatenate([more, array])


def bend(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image and label (z, y, x), 1 mm, of a somewhat other body: scaled along each axis and smoothly displaced."""
    knots = [n // KNOTS_MM + 4 for n in image.shape]
    scales = 1 + rng.uniform(-SCALED, SCALED, 3)
    places = np.empty((3, *image.shape), np.float32)
    for axis, n in enumerate(image.shape):
        heights = (BENT_MM * rng.standard_normal(knots)).astype(np.float32)
        steps = [(k - 1) / (KNOTS_MM * k - 1) for k in knots]  # as of ndimage.zoom
        field = ndimage.affine_transform(heights, steps, output_shape=image.shape, order=1)
        for a in range(3):
            field = ndimage.uniform_filter1d(field, KNOTS_MM, axis=a)
        line = (np.arange(n, dtype=np.float32) - n / 2) * np.float32(scales[axis]) + n / 2
        places[axis] = field + line.reshape([-1 if a == axis else 1 for a in range(3)])
    bent = ndimage.map_coordinates(image, places, order=1, mode="nearest")
    return bent, ndimage.map_coordinates(label, places, order=0, mode="nearest")


@dataclasses.dataclass(frozen=True, eq=False)
class Tissues:
    """Shares (z, y, x), float32, of each voxel, and the CT's texture in Hounsfield units."""

    air: np.ndarray
    fat: np.ndarray
    fluid: np.ndarray
    marrow: np.ndarray
    cortex: np.ndarray
    texture: np.ndarray


def find_tissues(ct: np.ndarray, femurs: np.ndarray) -> Tissues:
    """What each voxel of a CT (z, y, x) of 1 mm is made of; the rest is muscle."""
    ct = ct.astype(np.float32)
    smooth = ndimage.gaussian_filter(ct, 0.7)
    bone = sitk.GetImageFromArray(((smooth > 130) | femurs).astype(np.uint8))
    bone = sitk.GetArrayFromImage(sitk.BinaryMorphologicalClosing(bone, [4] * 3)) > 0
    bone = np.stack([ndimage.binary_fill_holes(plane) for plane in bone])
    inside = ndimage.gaussian_filter(bone.astype(np.float32), 0.5)
    dense = inside * np.clip((smooth - 300) / 350, 0, 1)
    air = np.clip((-200 - smooth) / 300, 0, 1)
    fat = np.clip((10 - smooth) / 90, 0, 1) * (1 - air) * (1 - inside)
    soft = np.clip(1 - air - fat - inside, 0, 1)
    mean = ndimage.gaussian_filter(ct * soft, 3.0) / np.maximum(ndimage.gaussian_filter(soft, 3.0), 0.05)
    watery = np.clip((28 - mean) / 15, 0, 1) * soft  # muscle has 50
    texture = np.clip(ct - ndimage.gaussian_filter(ct, 3.0), -150, 150)
    return Tissues(air, fat, watery, inside - dense, dense, texture)


def paint(tissues: Tissues, contrast: Contrast, rng: np.random.Generator) -> np.ndarray:
    """An MR-like image (z, y, x), int16, of a contrast."""
    c, shape = contrast, tissues.fat.shape
    clouds = ndimage.zoom(rng.standard_normal([n // 25 + 3 for n in shape]).astype(np.float32), 25, order=1)
    clouds = clouds[tuple(slice(0, n) for n in shape)]
    muscle = 1 - tissues.air - tissues.fat - tissues.fluid - tissues.marrow - tissues.cortex
    image = c.air * tissues.air + c.fat * tissues.fat + c.fluid * tissues.fluid + c.muscle * muscle
    image += c.marrow * (1 + c.mottle * clouds) * tissues.marrow + c.cortex * tissues.cortex
    image += c.texture * tissues.texture * (1 - tissues.air)
    aside = np.linspace(-1, 1, shape[2], dtype=np.float32) ** 2
    image = image * (1 - c.shading * aside) + 0.02 * rng.standard_normal(shape, np.float32)
    return np.rint(1000 * np.maximum(image, 0)).astype(np.int16)


def acquire(volume: Volume, label: Volume, spacing_mm: tuple[float, ...]) -> tuple[Volume, Volume]:
    """Image and label on a grid of another spacing (x, y, z), averaged over its voxels where these are larger."""
    width = np.asarray(spacing_mm[::-1]) / volume.spacing_mm[::-1]
    blurred = ndimage.gaussian_filter(volume.array.astype(np.float32), np.where(width > 1.2, 0.35 * width, 0))
    image = resample_image(volume.with_array(blurred), spacing_mm)
    labels = np.zeros(image.array.shape, np.uint8)
    for value in (1, 2):
        labels[resample_mask(label.with_array(label.array == value), spacing_mm).array] = value
    return image.with_array(np.rint(image.array).astype(np.int16)), image.with_array(labels)


def random_spacing(rng: np.random.Generator) -> tuple[float, ...]:
    """Voxels (x, y, z) in mm: about cubic in one case of three, else slices across one of the axes."""
    spacing = np.full(3, rng.uniform(1.0, 1.8))
    if rng.random() > 1 / 3:
        spacing[rng.integers(3)] = rng.uniform(2.0, 6.0)
    return tuple(np.round(spacing, 2).tolist())


def make_case(
    label: Volume, tissues: Tissues, below: int, seed: int, held_out: bool = False, all_contrasts: bool = False
) -> tuple[Volume, Volume, str]:
    """An MR-like scan, its label map and what it is: at random, or of the kind that is held out.

    Args:
        label: label map (z, y, x), 1 mm.
        tissues: on the same grid.
        below: slices, the lowest ones, of which a random number is not in view.
        seed: names the case.
        held_out: of that kind.
        all_contrasts: at random may be like that kind too.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    contrast = AXIAL_T2 if held_out else random_contrast(rng, all_contrasts)
    spacing = (1.7, 1.7, 1.6) if held_out else random_spacing(rng)
    image, labels = paint(tissues, contrast, rng), label.array
    if not held_out:
        image, labels = bend(image, labels, rng)
    lowest = 0 if held_out else int(rng.integers(below + 1))
    scan, truth = (
        cut(label.with_array(array), (slice(lowest, None), slice(0, None), slice(0, None))) for array in (image, labels)
    )
    return *acquire(scan, truth, spacing), f"voxels of {spacing} mm, {contrast}"


def main(argv: Sequence[str]) -> int:
    """Labels the CT, compares where asked to, writes the cases."""
    cli.no_arguments(argv)
    try:
        numbers = [float(word) for word in FLAGS.heads]
        heads = [numbers[:3], numbers[3:]]
        if len(numbers) != 6:
            raise ValueError
    except ValueError:
        raise UsageError(f"--heads: received {','.join(FLAGS.heads)}.\nExpected six numbers (LPS, mm).") from None
    names = [f"ct_{number:02d}" for number in range(FLAGS.cases)]
    patients = [case for dataset in FLAGS.patients for case in _cases_of(Path(dataset))]
    known = names + [case.name for case in patients]
    if unknown := sorted(set(FLAGS.validate) - set(known)):
        raise UsageError(f"--validate: no case {', '.join(unknown)}.\nExpected some of {', '.join(known)}.")
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise UsageError(f"--patients: two cases are called {', '.join(twice)}.\nExpected another name for each.")
    folder = cli.empty_folder(FLAGS.output)
    ct = resample_image(orient(read_volume(FLAGS.ct), "LPS"), GRID_MM)
    label = label_femurs(ct, heads)
    if FLAGS.check:
        check = orient(read_volume(FLAGS.check), "LPS").array
        for name, value in (("left", 1), ("right", 2)):
            print(f"{name}: Dice with {FLAGS.check} {dice(count_overlap(check == value, label.array == value)):.4f}")
    below = round(FLAGS.extend_mm)
    origin = tuple(ct.world_mm((-below, 0, 0)).tolist())
    ct = dataclasses.replace(ct, array=go_on_below(ct.array, below), origin_mm=origin)
    label = dataclasses.replace(label, array=go_on_below(label.array, below), origin_mm=origin)
    tissues = find_tissues(ct.array, label.array > 0)
    for number, name in enumerate(names):
        image, labels, told = make_case(label, tissues, below, FLAGS.seed + number, FLAGS.held_out, FLAGS.all_contrasts)
        write_volume(image, folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_volume(labels, folder / "labelsTr" / f"{name}.nii.gz")
        print(f"{name}: {told}", flush=True)
    _link(patients, folder)
    trained = [name for name in known if name not in FLAGS.validate]
    dataset = {"name": "ct_mr", "channel_names": {"0": "made of CT"}, "labels": LABELS, "file_ending": ".nii.gz"}
    splits = [{"train": trained, "val": list(FLAGS.validate)}]
    count = {"numTraining": len(known)}
    for file, contents in (("dataset.json", {**dataset, **count}), ("splits_final.json", splits)):
        (folder / file).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    cli.finish_folder(folder)
    return 0


def _cases_of(dataset: Path) -> list[CasePaths]:
    if read_labels(dataset) != LABELS:
        raise UsageError(f"--patients: {dataset} has labels {read_labels(dataset)}.\nExpected {LABELS}.")
    return find_cases(dataset)


def _link(cases: Sequence[CasePaths], folder: Path) -> None:
    """Links images and labels into another dataset's folders."""
    for case in cases:
        for file, inside in ((case.image, "imagesTr"), (case.label, "labelsTr")):
            (folder / inside / file.name).symlink_to(file.resolve())


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("ct", None, "CT scan in Hounsfield units", required=True)
    flags.DEFINE_list("heads", None, "centres of the right and the left femoral head: x,y,z,x,y,z (LPS, mm)")
    flags.mark_flag_as_required("heads")
    flags.DEFINE_string("output", None, "folder of the dataset", short_name="o", required=True)
    flags.DEFINE_integer("cases", 8, "how many contrasts", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of the first case; the next ones count on from it", lower_bound=0)
    flags.DEFINE_float("extend_mm", 100.0, "how far the thighs go on below the CT, at most", lower_bound=0)
    flags.DEFINE_multi_string("patients", [], "dataset in nnU-Net's layout, with the same labels, to link beside them")
    flags.DEFINE_list("validate", [], "cases that are not trained on but validate")
    flags.DEFINE_bool("held_out", False, "the contrast and voxels that are kept out of training, to test with")
    flags.DEFINE_bool("all_contrasts", False, "keep no contrast out: for a model that is not measured on that one")
    flags.DEFINE_string("check", None, "a label map (1 left, 2 right) to compare the label with")


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
