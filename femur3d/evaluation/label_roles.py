"""Which labels of a dataset are femurs, by their names."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence

from femur3d.errors import InputError, UsageError

# Words of a label's name: a femur, a part of one, and what lies at, in or beside it.
FEMUR = re.compile(r"femur|thigh ?bone|oberschenkelknochen")
FEMUR_PART = re.compile(r"femor.*(head|neck|shaft|bone|trochanter)|(head|neck|shaft|bone|proximal).*femor")
LEFT = re.compile(r"\b(left|l|links?|gauche|sinistr[ao]|izquierd[ao]|linke[rs]?)\b")
RIGHT = re.compile(r"\b(right|r|rechts?|droite?|destr[ao]|derech[ao]|rechte[rs]?)\b")
NO_FEMUR = re.compile(
    r"\b(not?|non|without|other|and|or)\b|acetab|pelvi|tibia|patell|ilium|socket|cartilage|muscle|muscul|arter|vein|"
    r"nerve|vessel|ligament|implant|prosthe|stem|lesion|tumou?r|edema|fat"
)


@dataclasses.dataclass(frozen=True)
class LabelRoles:
    """What the values of a label map are to training and evaluation.

    Attributes:
        femurs: values that are learnt, one femur each.
        names: theirs.
        ignored: value of nnU-Net's "ignore", which counts for nothing; None where there is none.
        left_out: name → value of labels that count as background.
    """

    femurs: tuple[int, ...]
    names: tuple[str, ...]
    ignored: int | None
    left_out: Mapping[str, int]

    def sides(self) -> dict[int, int]:
        """Value of each femur → 1 left, 2 right, by the names; 1 and 2 by their order where two names say no side."""
        said = [_side(name) for name in self.names]
        if len(said) == 2 and not any(said):
            said = [1, 2] if self.femurs[0] < self.femurs[1] else [2, 1]
        return {value: side or 1 for value, side in zip(self.femurs, said, strict=True)}

    def known(self) -> dict[int, str]:
        """Every value that a label map may hold, with its name."""
        named = dict(zip(self.femurs, self.names, strict=True))
        ignored = {} if self.ignored is None else {self.ignored: "ignore"}
        return {0: "background", **named, **{value: name for name, value in self.left_out.items()}, **ignored}


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
    left_out = {name: labels[name] for name in others if name not in femurs}
    return LabelRoles(tuple(labels[name] for name in femurs), tuple(femurs), labels.get("ignore"), left_out)


def roles_of_references(labels: dict[str, int]) -> LabelRoles:
    """Which labels of references are femurs: those that are named like one, or all where no name is.

    Args:
        labels: name → value, without the background.
    """
    others = {name: value for name, value in labels.items() if name != "ignore"}
    femurs = {name: value for name, value in others.items() if _is_femur(name)} or others
    left_out = {name: value for name, value in others.items() if name not in femurs}
    return LabelRoles(tuple(femurs.values()), tuple(femurs), labels.get("ignore"), left_out)


def _side(name: str) -> int:
    """1 where a name says left, 2 where it says right, 0 where it says neither or both."""
    left, right = (bool(side.search(_words(name))) for side in (LEFT, RIGHT))
    return 1 * (left and not right) + 2 * (right and not left)


def _words(name: str) -> str:
    """The words of a name in lower case, without accents: 'FemurR' is 'femur r'."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    letters = "".join(c for c in unicodedata.normalize("NFD", parted) if not unicodedata.combining(c))
    return re.sub(r"[^a-z]+", " ", letters)


def _is_femur(name: str) -> bool:
    """Whether a label's name is that of a femur or of its proximal part: femur_left, FemurR, "Fémur droit"."""
    words = _words(name)
    return bool(FEMUR.search(words) or FEMUR_PART.search(words)) and not NO_FEMUR.search(words)
