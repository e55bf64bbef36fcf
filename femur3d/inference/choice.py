"""Which of the models that come with femur3d segments a scan: the next one is tried where a model's flags are red."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from femur3d.errors import InputError
from femur3d.inference.quality_limits import RED, YELLOW, Flag
from femur3d.inference.saved_model import SHIPPED, find_model
from femur3d.inference.segmenter import Segmentation, Segmenter
from femur3d.inference.sliding_window import Progress
from femur3d.volume import Volume

AUTO = "auto"  # the models below, in this order
NAMES = ("hip_t1", "hip_mr")


def find_models(name: str) -> list[Path]:
    """The folders that a model's name or path stands for: one, or all of `NAMES` for 'auto'."""
    return [SHIPPED.parent / one for one in NAMES] if name == AUTO and not Path(name).exists() else [find_model(name)]


class Chooser:
    """Segments with the first model; where its flags are red or it finds nothing, with the next, and takes the better.

    A scan that the first model has no doubt about costs no more time than with that model alone.

    Args:
        folders: of the models; of one nothing is chosen.
        load: makes a segmenter of a folder; called for the next models when they are first needed.
    """

    def __init__(self, folders: Sequence[Path], load: Callable[[Path], Segmenter]) -> None:
        self._folders = folders
        self._load = functools.cache(load)
        self._load(folders[0])

    def __call__(
        self, scan: Volume, labels: Literal["femur", "sides"] = "sides", progress: Progress | None = None
    ) -> Segmentation:
        """As `Segmenter`; `choice` of the result says which model was taken and why, where there was a choice.

        'tried' in it are the SHA-256 of the weights of all that segmented.
        """
        name, best = self._folders[0].name, self._load(self._folders[0])(scan, labels, progress)
        if len(self._folders) == 1:
            return best
        said, tried, seconds = [f"{name} {_told(best)}"], [best.model["weights_sha256"]], best.seconds
        for folder in self._folders[1:]:
            if not best.needs_a_look:
                break
            try:
                other = self._load(folder)(scan, labels, progress)
            except (InputError, MemoryError) as error:
                said.append(f"{folder.name} failed ({str(error).partition(chr(10))[0] or 'memory'})")
                continue
            said.append(f"{folder.name} {_told(other)}")
            tried.append(other.model["weights_sha256"])
            seconds = {stage: round(s + other.seconds[stage], 3) for stage, s in seconds.items()}
            if concern(other.quality) < concern(best.quality):
                name, best = folder.name, other
        return dataclasses.replace(
            best, seconds=seconds, choice={"taken": name, "why": "; ".join(said), "tried": tried}
        )


def concern(quality: Mapping[str, Flag]) -> tuple[float, int, int]:
    """How little a segmentation is to be trusted: femurs that are missing, red flags, yellow ones.

    In this order: what was not found raises no flags.
    """
    levels = [flag.level for flag in quality.values()]
    missing = quality["missing_femurs"].value if "missing_femurs" in quality else 0.0
    return missing, levels.count(RED), levels.count(YELLOW)


def _told(result: Segmentation) -> str:
    _, red, yellow = concern(result.quality)
    return f"has {red} red and {yellow} yellow flags" if result.labels.array.any() else "found no femur"
