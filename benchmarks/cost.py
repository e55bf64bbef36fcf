"""How cost grows: seconds and peak memory against voxels, scans, width, patch size and batch size, beside the ideal.

    python -m benchmarks.cost -o DIR [--edges 64,96,128] [--scans 1,2,4] [--widths 0.125,0.25] [--patches 32,64]
        [--batches 1,2] [--engine auto|openvino|tensorflow]

Voxels and scans: the command `femur3d.infer` on cubes of a synthetic hip (on hip_t1's voxels, mirrored where it ends),
from its start to its end. Width, patch and batch size: `benchmarks.network`, which times PyTorch beside femur3d where
that is installed. Writes DIR/cost.csv and DIR/cost.png, in which the ideal line (cost in proportion to work) starts at
the first point of each curve. The defaults take minutes; up to 512×512×400 voxels: --edges 64,128,256,470.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from benchmarks.benchmark_process import machine
from benchmarks.inference import SHIPPED, Subject, volume_array
from femur3d import cli
from femur3d.errors import UsageError
from femur3d.inference.saved_model import load_model
from femur3d.io.images import write_volume
from femur3d.volume import Volume

FLAGS = flags.FLAGS
_ROW = re.compile(r"^(training step|forward pass) +(\S.*?)  +[\d,]+ +([\d.]+) +[\d.]+$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        axis: what grows: 'voxels', 'scans', 'width', 'patch' or 'batch'.
        curve: what was measured.
        size: on the axis, as it is told.
        work: what an ideal cost is in proportion to.
        seconds: taken.
        memory_mib: of the process at its peak; 0 where it was not measured.
    """

    axis: str
    curve: str
    size: float
    work: float
    seconds: float
    memory_mib: float = 0.0


def infer(scans: Sequence[Path], output: Path, *words: str) -> tuple[float, float]:
    """Seconds and peak MiB of `femur3d.infer`. Raises UsageError where it fails."""
    paths = [word for scan in scans for word in ("-i", str(scan))]
    command = [sys.executable, "-m", "femur3d.infer", "-o", str(output), "--model", "hip_t1", *words, *paths]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 4):  # 4: no femur in so small a piece
        raise UsageError(f"{' '.join(command)}\n{said[-500:]}")
    return time.perf_counter() - start, used.ru_maxrss / (1 if sys.platform != "darwin" else 1024) / 1024


def cube(edge: int, folder: Path) -> Path:
    """A scan of edge³ voxels."""
    preprocessing = load_model(SHIPPED).preprocessing
    array = volume_array(Subject((edge, edge, edge), str(SHIPPED), None), preprocessing)
    path = folder / f"cube_{edge}.nii.gz"
    x, y, z = preprocessing.spacing_mm
    write_volume(Volume(array, (x, y, z)), path)
    return path


def scan_points(edges: Sequence[int], counts: Sequence[int], engine: str) -> Iterator[Point]:
    """`femur3d.infer` on larger scans, and on more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for edge in edges:
            scan = cube(edge, folder)
            for curve, words in (("exact", ()), ("--fast", ("--fast",))):
                measured = infer([scan], folder / "out", "--engine", engine, *words)
                yield Point("voxels", f"infer {curve}", edge**3, edge**3, *measured)
        first = folder / f"cube_{edges[0]}.nii.gz"
        copies = [Path(shutil.copy(first, folder / f"copy_{i}.nii.gz")) for i in range(max(counts, default=0))]
        for count in counts:
            measured = infer(copies[:count], folder / f"out_{count}", "--engine", engine, "--fast", "--preview")
            yield Point("scans", "infer --fast --preview", count, count, *measured)


def network_points(widths: Sequence[float], patches: Sequence[int], batches: Sequence[int]) -> Iterator[Point]:
    """An update and a forward pass of wider networks, on larger patches and batches."""
    width, patch, batch = min(widths), min(patches), min(batches)
    runs = [("width", w, w**2, (w, patch, batch)) for w in widths]
    runs += [("patch", p, p**3, (width, p, batch)) for p in patches]
    runs += [("batch", b, b, (width, patch, b)) for b in batches]
    for axis, size, work, (w, p, b) in runs:
        words = ["--width", str(w), "--patch", str(p), "--batch", str(b), "--repeats", "3"]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.network", *words], capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            raise UsageError(f"benchmarks.network {' '.join(words)}\n{done.stderr[-500:]}")
        for task, library, seconds in _ROW.findall(done.stdout):
            if not (axis == "batch" and task == "forward pass"):  # which is of one patch
                yield Point(axis, f"{task}, {library}", size, work, float(seconds))


def draw(points: Sequence[Point], path: Path) -> None:
    """Seconds, and below them memory, against each axis; both logarithmic."""
    from matplotlib.figure import Figure

    axes_names = list(dict.fromkeys(point.axis for point in points))
    figure = Figure(figsize=(4 * len(axes_names), 7), layout="constrained")
    grid = figure.subplots(2, len(axes_names), squeeze=False)
    for column, axis in enumerate(axes_names):
        for row, kind in enumerate(("seconds", "memory_mib")):
            panel = grid[row][column]
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=kind.replace("_mib", ", MiB"))
            for curve in dict.fromkeys(point.curve for point in points if point.axis == axis):
                found = [point for point in points if (point.axis, point.curve) == (axis, curve)]
                values = [getattr(point, kind) for point in found]
                if not all(values):
                    continue
                (line,) = panel.plot([point.size for point in found], values, "o-", label=curve)
                ideal = [values[0] * point.work / found[0].work for point in found]
                panel.plot([point.size for point in found], ideal, ":", color=line.get_color(), linewidth=1)
            if panel.get_legend_handles_labels()[0]:
                panel.legend(fontsize=7)
            else:
                panel.set_axis_off()
    figure.savefig(path, dpi=110)


def _numbers(name: str, kind: type) -> list:
    try:
        found = [kind(word) for word in getattr(FLAGS, name)]
    except ValueError as error:
        raise UsageError(f"--{name} {','.join(getattr(FLAGS, name))}: not numbers.") from error
    if any(number <= 0 for number in found):
        raise UsageError(f"--{name} {','.join(getattr(FLAGS, name))}: not all are positive.")
    return found


def main(argv: Sequence[str]) -> int:
    """Measures point after point, and writes the table and the plots."""
    cli.no_arguments(argv)
    edges, counts, patches, batches = (_numbers(name, int) for name in ("edges", "scans", "patches", "batches"))
    widths, output = _numbers("widths", float), Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    print(machine())
    points = []
    runs = [scan_points(edges, counts, FLAGS.engine)] if edges else []
    runs += [network_points(widths, patches, batches)] if widths and patches and batches else []
    with tqdm(unit="point", disable=None) as bar:
        for point in (point for run in runs for point in run):
            points.append(point)
            bar.update()
            memory = f"{point.memory_mib:8.0f} MiB" if point.memory_mib else ""
            bar.write(f"{point.axis:<7}{point.size:>12g}  {point.curve:<28}{point.seconds:9.2f} s{memory}")
    with (output / "cost.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Point)])
        table.writeheader()
        table.writerows(dataclasses.asdict(point) for point in points)
    draw(points, output / "cost.png")
    print(output / "cost.csv", output / "cost.png", sep="\n")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Folder to write to.", short_name="o", required=True)
    flags.DEFINE_list("edges", ["64", "96", "128"], "Edges of cubic scans, voxels; empty: neither voxels nor scans.")
    flags.DEFINE_list("scans", ["1", "2", "4"], "Numbers of scans, of the first edge.")
    flags.DEFINE_list("widths", ["0.125", "0.25"], "Filters in parts of the paper's; empty: no network alone.")
    flags.DEFINE_list("patches", ["32", "64"], "Edges of patches, voxels.")
    flags.DEFINE_list("batches", ["1", "2"], "Patches an update.")
    flags.DEFINE_string("engine", "auto", "Of femur3d.infer.")
    cli.run(main)
