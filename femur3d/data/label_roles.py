"""Which labels of a dataset are femurs, by their names."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Sequence

from femur3d.errors import InputError, UsageError

# Words of a label's name: a femur, a part of one, and what lies at, in or beside it.
FEMUR = re.compile(r"femur|thigh ?bone|oberschenkelknochen")
FEMUR_PART = re.compile(r"femor.*(head|neck|shaft|bone|trochanter)|(head|neck|shaft|bone|proximal).*femor")
NO_FEMUR = re.compile(
    r"\b(not?|non|without|other|and|or)\b|acetab|pelvi|tibia|patell|ilium|socket|cartilage|muscle|muscul|arter|vein|"
    r"nerve|vessel|ligament|implant|prosthe|stem|lesion|tumou?r|edema|fat"
)


@dataclasses.dataclass(frozen=True)
class LabelRoles:
    """What the values of a label map are to the training.

    Attributes:
        femurs: values that are learnt, one femur each.
        names: theirs.
        ignored: value of nnU-Net's "ignore", which counts for nothing; None where there is none.
        left_out: names of labels that count as background.
    """

    femurs: tuple[int, ...]
    names: tuple[str, ...]
    ignored: int | None
    left_out: tuple[str, ...]


def label_roles(labels: dict[str, int], femur_labels: Sequence[str] = ()) -> LabelRoles:
    """Which labels are learnt, by their names.

    Args:
        labels: from `read_labels`.
        femur_labels: names of those that are femurs, so that all others count as background. () goes by the names:
            every one must be a femur's, but for 'background' and nnU-Net's 'ignore'.

    Raises:
        UsageError: `femur_labels` names a label that there is not.
        InputError: a label's name says no femur.
    """
    others = [name for name in labels if name not in ("background", "ignore")]
    for name in set(femur_labels) - set(others):
        raise UsageError(f"--femur_labels: no label {name!r}.\nThe dataset has {', '.join(others)}.")
    if not femur_labels:
        strange = [name for name in others if not _is_femur(name)]
        if strange or not others:
            learnt = ",".join(name for name in others if _is_femur(name)) or "NAME,NAME"
            named = ", ".join(f"{name!r} ({labels[name]})" for name in strange) or "none but 'background'"
            raise InputError(
                f"dataset.json: labels that do not say femur: {named}.\n"
                f"Say which are femurs, so that all others count as background: --femur_labels={learnt}"
            )
    femurs = [name for name in others if not femur_labels or name in femur_labels]
    left_out = tuple(name for name in others if name not in femurs)
    return LabelRoles(tuple(labels[name] for name in femurs), tuple(femurs), labels.get("ignore"), left_out)


def _is_femur(name: str) -> bool:
    """Whether a label's name is that of a femur or of its proximal part: femur_left, FemurR, "Fémur droit"."""
    letters = "".join(c for c in unicodedata.normalize("NFD", name.lower()) if not unicodedata.combining(c))
    words = re.sub(r"[^a-z]+", " ", letters)
    return bool(FEMUR.search(words) or FEMUR_PART.search(words)) and not NO_FEMUR.search(words)
