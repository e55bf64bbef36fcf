"""What can be measured of a segmentation without a reference, to tell the ones that should be looked at.

`measure` gives plain numbers; `quality_limits` says which of them are out of the ordinary. A measure that has no
meaning for a scan is left out: without a femur there is no volume, with one femur no ratio of the two sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.postprocessing import component_sizes, femur_mask, head_offset_mm, positions_mm
from femur3d.volume import Volume

UNCERTAIN = (0.1, 0.9)  # between these probabilities the network does not know
FRAGMENT_ML = 0.5  # smaller pieces are specks
BOTH_HIPS_MM = 280.0  # a field of view as wide as this shows both hips; one hip is scanned with 160 to 220 mm

# Names of the measures, each with its range.
NAMES = (
    "patch_disagreement",  # 0 to 1: variance within voxels over the patches that cover them, in parts of Σ P
    "head_disagreement",  # 0 to 1: 1 - Dice of UpperCls with MidCls or LowerCls, the larger
    "uncertain_share",  # 0 to 1: voxels with 0.1 < P < 0.9 in parts of those with P > 0.1
    "removed_share",  # 0 to 1: what cleaning removed in parts of what was found
    "fragments",  # 0 or more: pieces of at least 0.5 ml that cleaning removed
    "border_contact_cm2",  # 0 or more: where the femurs are cut by the field of view, its lower end aside
    "missing_femurs",  # 0 to 2: fewer than a field of view of this width shows
    "smallest_volume_ml",  # more than 0: of the smaller femur
    "largest_volume_ml",  # more than 0: of the larger femur
    "side_ratio",  # 0 to 1: volume of the smaller femur in parts of the larger one's
    "head_medial_mm",  # how far heads lie medial of shafts, the smaller one; negative where a patient is upside down
)


def measure(
    labels: Volume,
    probability: Volume,
    patch_variance: float,
    heads: dict[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """All measures of one segmentation, see `NAMES`; those without a meaning are left out.

    Args:
        labels: the label map; every value but 0 is femur.
        probability: P(femur) on the same grid.
        patch_variance: see `sliding_window.PatchMean`.
        heads: P(femur) by 'lower', 'mid' and 'upper' in some patches, float32 (n, z, y, x); None: not measured.
    """
    femurs = femurs_of(labels)
    share, fragments = removed(labels, probability)
    found = {
        "patch_disagreement": patch_variance,
        "uncertain_share": uncertain_share(probability.array),
        "removed_share": share,
        "fragments": fragments,
        "border_contact_cm2": border_contact_cm2(labels),
        "missing_femurs": missing_femurs(labels, len(femurs)),
        **shape(labels, femurs),
    }
    if heads is not None:
        found["head_disagreement"] = head_disagreement(heads)
    return {name: float(found[name]) for name in NAMES if name in found}


class Femur(NamedTuple):
    """One femur of a label map.

    Attributes:
        positions_mm: of its voxels, float64 (n, 3), LPS, see `postprocessing.positions_mm`.
        voxels: how many it has.
    """

    positions_mm: np.ndarray
    voxels: int


def femurs_of(labels: Volume) -> list[Femur]:
    """The femurs of a label map, whichever its values: its connected components."""
    components, _ = ndimage.label(labels.array)
    found = []
    for value, box in enumerate(ndimage.find_objects(components), start=1):
        mask = components[box] == value
        found.append(Femur(positions_mm(mask, labels, [axis.start for axis in box]), int(mask.sum())))
    return found


def tile_centres_mm(femurs: Sequence[Femur]) -> np.ndarray:
    """Where to look closer: the centroids, (2n, 3) LPS mm, of the upper and the lower half of each femur's height."""
    centres = []
    for points, _ in femurs:
        z = points[:, 2]
        upper = z >= (z.min() + z.max()) / 2
        centres += [points[half].mean(axis=0) for half in (upper, ~upper) if half.any()]
    return np.reshape(centres, (-1, 3))


def head_disagreement(heads: dict[str, np.ndarray]) -> float:
    """1 - Dice of UpperCls with MidCls or with LowerCls, whichever is larger; all patches pooled. 0 to 1.

    Args:
        heads: P(femur) by 'lower', 'mid' and 'upper', all of one shape.
    """
    upper = heads["upper"] > 0.5
    return max(1 - dice(count_overlap(upper, heads[name] > 0.5)) for name in ("mid", "lower"))


def uncertain_share(probability: np.ndarray) -> float:
    """Voxels with 0.1 < P < 0.9 in parts of those with P > 0.1; 0 to 1, and 0 where there are none."""
    low, high = UNCERTAIN
    possible = np.count_nonzero(probability > low)
    return 1 - np.count_nonzero(probability >= high) / possible if possible else 0.0


def removed(labels: Volume, probability: Volume) -> tuple[float, int]:
    """What cleaning removed: its part (0 to 1) of all voxels found, and the number of pieces of `FRAGMENT_ML` or more.

    Args:
        labels: label map, after cleaning.
        probability: P(femur), before.
    """
    found = femur_mask(probability)
    gone = found & (labels.array == 0)
    count = np.count_nonzero(found)
    if not count:
        return 0.0, 0
    sizes = component_sizes(*ndimage.label(gone))
    return np.count_nonzero(gone) / count, int(np.count_nonzero(sizes * labels.voxel_ml >= FRAGMENT_ML))


def border_contact_cm2(labels: Volume) -> float:
    """Area in cm² in which femurs touch the field of view's faces, the inferior one aside: shafts are cut there."""
    down = _inferior_face(labels)
    area = 0.0
    for axis in range(3):
        sides_mm = [mm for other, mm in enumerate(labels.spacing_mm[::-1]) if other != axis]
        for end in (0, -1):
            if (axis, end) != down:
                area += np.count_nonzero(labels.array.take(end, axis)) * math.prod(sides_mm) / 100
    return area


def missing_femurs(labels: Volume, found: int) -> int:
    """How many femurs fewer were found than a field of view of this width from left to right shows; 0 to 2."""
    x_mm = labels.affine[0, :3] * labels.array.shape[::-1]
    shown = 2 if np.abs(x_mm).sum() >= BOTH_HIPS_MM else 1
    return max(shown - found, 0)


def shape(labels: Volume, femurs: Sequence[Femur]) -> dict[str, float]:
    """Volumes of the femurs; of two also what compares them; {} without a femur.

    Args:
        labels: the grid.
        femurs: of `femurs_of`.
    """
    if not femurs:
        return {}
    volumes = [femur.voxels * labels.voxel_ml for femur in femurs]
    sides = {}
    if len(femurs) == 2:
        sides = {
            "side_ratio": min(volumes) / max(volumes),
            "head_medial_mm": head_medial_mm([f.positions_mm for f in femurs]),
        }
    return {"smallest_volume_ml": min(volumes), "largest_volume_ml": max(volumes), **sides}


def head_medial_mm(femurs: Sequence[np.ndarray]) -> float:
    """How far the top quarter of a femur's height lies medial of the bottom quarter, in mm; the smaller of two femurs.

    Args:
        femurs: positions of two, (n, 3) LPS mm.
    """
    middle = np.mean([points[:, 0].mean() for points in femurs])
    sides = [1 if points[:, 0].mean() > middle else -1 for points in femurs]  # +x is the patient's left
    return min(-side * head_offset_mm(points) for side, points in zip(sides, femurs, strict=True))


def _inferior_face(volume: Volume) -> tuple[int, int]:
    """Array axis and end (0 or -1) of the face of the field of view that points downwards most."""
    superior = np.reshape(volume.direction, (3, 3))[2, ::-1]  # of array axes (z, y, x)
    axis = int(np.argmax(np.abs(superior)))
    return axis, 0 if superior[axis] > 0 else -1
