"""Puts a trained model where `infer` finds it by itself: half-precision weights in a folder of the package.

    python tools/ship_model.py --model runs/cv/all/model [-o femur3d/models/hip_t1]

Prints what it changes. A model card that lies in the folder stays; limits of the quality flags, which hold for other
weights, do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from femur3d import cli
from femur3d.io.atomic import replacing

with cli.quiet_imports():
    from femur3d.inference.quality_limits import QUALITY
    from femur3d.inference.saved_model import SHIPPED, load_model, save_model
    from femur3d.network.unet import upper_probability

FLAGS = flags.FLAGS
CARD = "README.md"


def ship(model: Path, folder: Path) -> float:
    """Writes the model in `model` to `folder` with float16 weights; a model card that lies there is kept.

    The limits of the quality flags come from `model` too, where it has some.

    Returns:
        The largest change of P(femur) in a patch of noise.
    """
    trained = load_model(model)
    card = (folder / CARD).read_bytes() if (folder / CARD).exists() else None
    parts = (trained.network, trained.network_config, trained.preprocessing, trained.provenance)
    save_model(folder, *parts, half=True)
    if card is not None:
        with replacing(folder / CARD) as temporary:
            temporary.write_bytes(card)
    if trained.quality:
        (folder / QUALITY).write_bytes((model / QUALITY).read_bytes())
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 32, 32, 32, 1), np.float32)
    before, after = (upper_probability(m.network)(noise) for m in (trained, load_model(folder)))
    return float(np.abs(np.asarray(before) - np.asarray(after)).max())


def _define_flags() -> None:
    """Not at import: tests use the function above."""
    flags.DEFINE_string("model", None, "folder of a trained model", required=True)
    flags.DEFINE_string("output", str(SHIPPED), "folder to write", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Ships one model."""
    cli.no_arguments(argv)
    folder = Path(FLAGS.output)
    change = ship(Path(FLAGS.model), folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB; P(femur) in a patch of noise changed by at most {change:.1g}")
    if not (folder / QUALITY).exists():
        print(f"No quality flags until limits are learnt: experiments/studies/learn_quality.py --quality {folder} ...")
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
