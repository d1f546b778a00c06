"""SLIC against scikit-image and SimpleITK: time, memory, explained variance, number of supervoxels.

Each tool gets the same image, the same number of supervoxels and iterations, connectivity on, and
the compactness of a log grid with which it explains most variance of a smaller volume at the same
voxels per supervoxel. Intensities lie in [0, 1], where all three compactnesses have one meaning up
to a factor. Pieces below a quarter of a supervoxel are merged, which SimpleITK does and voxseg is
asked to; scikit-image merges those below a half.
"""

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from voxseg.bench.report import BenchResult, Row, Sweep, machine_info
from voxseg.metrics.superpixels import explained_variance
from voxseg.ops import slic

Image = NDArray[np.float32]
Labels = NDArray[np.integer[Any]]

ITERATIONS = 10
TUNING = (0.01, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3, 1.0)
"""Compactnesses that are tried with each tool."""
_REPEATS = 5
_FEWEST = 4
"""A supervoxel is at least this many voxels in a sweep."""


@dataclass(frozen=True, kw_only=True)
class SlicBench:
    """What is measured."""

    shape: tuple[int, int, int] = (256, 128, 256)
    """Size of the simulated volume; ignored with ``image``."""
    n_segments: int = 2000
    image: Path | None = None
    """A volume to measure instead, cut to its voxels that are not 0."""
    tuning_voxels: int = 64**3
    """Compactness is tuned, and curves are drawn, on a volume of at most this size."""
    tools: tuple[str, ...] = ("voxseg", "scikit-image", "SimpleITK")
    memory: bool = True
    """Measure peak memory, each tool in a process of its own."""
    sweep: bool = True
    """Also measure time against voxels and against supervoxels."""
    seed: int = 0


def run_slic_bench(
    bench: SlicBench | None = None, notify: Callable[[str], None] = lambda _: None
) -> BenchResult:
    """Measure SLIC and its peers.

    Args:
        bench: sizes and tools.
        notify: told what is being measured.

    Returns:
        A row a tool: seconds, seconds of work of all threads (which other programs on the machine
        change less), how many times voxseg's seconds, peak memory beyond the image in bytes per
        voxel, explained variance, supervoxels, compactness. With ``sweep``, curves of time.
    """
    bench = bench or SlicBench()
    image = _image(bench)
    small = _centre(image, bench.tuning_voxels)
    few = max(2, round(bench.n_segments * small.size / image.size))
    compactness = {}
    for tool in bench.tools:
        notify(f"tuning {tool}")
        compactness[tool] = _tune(tool, small, few)
    rows = []
    for tool in bench.tools:
        notify(f"measuring {tool}")
        rows.append(_measure(tool, image, bench, compactness[tool]))
    for row in rows:
        row["times voxseg"] = round(float(row["seconds"]) / float(rows[0]["seconds"]), 1)
    sweeps = [*_sweep(bench, small, few, compactness, notify)] if bench.sweep else []
    shape = " x ".join(map(str, image.shape))
    title = f"SLIC, {shape} voxels, {bench.n_segments} supervoxels, {ITERATIONS} iterations"
    return BenchResult(title, machine_info(torch.get_num_threads()), rows, sweeps)


def simulated_volume(shape: Sequence[int], seed: int) -> Image:
    """Make smooth blobs of five intensities, as of tissues, with noise of a tenth of their range.

    Args:
        shape: (Z, Y, X).
        seed: of the random numbers.

    Returns:
        float32 in [0, 1].
    """
    rng = np.random.default_rng(seed)
    coarse = [max(4, -(-n // 4)) for n in shape]
    field = ndimage.gaussian_filter(rng.standard_normal(coarse, np.float32), 4)
    field = field.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(slice(n) for n in shape)]
    field = ndimage.gaussian_filter(field, 2)
    field /= field.std()
    image = np.digitize(field, (-1, -0.3, 0.3, 1)).astype(np.float32) / 4
    image += rng.standard_normal(image.shape, np.float32) / 10
    return _to_unit(image)


def peak_bytes(tool: str, path: Path, n_segments: int, compactness: float) -> int:
    """Run on a stored image and return the peak of memory beyond what was held.

    Meant for a process of its own; needs Linux's ``/proc``.

    Args:
        tool: a name of ``SlicBench.tools``.
        path: (Z, Y, X) float32 ``.npy``.
        n_segments: number of supervoxels.
        compactness: of the tool.
    """
    image = np.load(path)
    # What compiles or loads at the first call is not the algorithm's memory.
    _run(tool, np.ascontiguousarray(image[:16, :16, :16]), 8, compactness)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    _run(tool, image, n_segments, compactness)
    return _resident("VmHWM") - before


def _run(tool: str, image: Image, n_segments: int, compactness: float) -> Labels:
    """Partition an image in [0, 1] with one of the tools."""
    if tool == "voxseg":
        return slic(
            image,
            n_segments=n_segments,
            compactness=compactness,
            iterations=ITERATIONS,
            min_size=0.25,
        )
    if tool == "scikit-image":
        from skimage import segmentation

        labels: Labels = segmentation.slic(
            image,
            n_segments=n_segments,
            compactness=compactness,
            max_num_iter=ITERATIONS,
            enforce_connectivity=True,
            channel_axis=None,
            start_label=0,
        )
        return labels
    if tool == "SimpleITK":
        import SimpleITK as sitk  # noqa: N813 - the name that its own documentation uses

        edge = max(1, round((image.size / n_segments) ** (1 / 3)))
        regions = sitk.SLIC(  # type: ignore[no-untyped-call]  # SimpleITK has no types
            sitk.GetImageFromArray(image),
            maximumNumberOfIterations=ITERATIONS,
            superGridSize=[edge] * 3,
            spatialProximityWeight=compactness,
            enforceConnectivity=True,
        )
        return sitk.GetArrayFromImage(regions).astype(np.int32)
    raise ValueError(f"no tool is called {tool!r}; there are {SlicBench.tools}")


def _tune(tool: str, image: Image, n_segments: int) -> float:
    """Find the compactness that explains most variance."""
    variance = {c: explained_variance(image, _run(tool, image, n_segments, c)) for c in TUNING}
    return max(variance, key=lambda c: variance[c])


def _measure(tool: str, image: Image, bench: SlicBench, compactness: float) -> Row:
    """Time one tool; those that take long are run once."""
    seconds: list[float] = []
    work: list[float] = []
    while not seconds or (len(seconds) < _REPEATS and sum(seconds) < 10):
        start, start_work = time.perf_counter(), time.process_time()
        labels = _run(tool, image, bench.n_segments, compactness)
        seconds.append(time.perf_counter() - start)
        work.append(time.process_time() - start_work)
    return {
        "tool": tool,
        "seconds": round(statistics.median(seconds), 3),
        "CPU seconds": round(statistics.median(work), 3),
        "times voxseg": 1.0,
        "bytes per voxel": _memory(tool, image, bench, compactness) if bench.memory else math.nan,
        "explained variance": round(explained_variance(image, labels), 4),
        "supervoxels": int(np.unique(labels).size),
        "compactness": compactness,
    }


def _memory(tool: str, image: Image, bench: SlicBench, compactness: float) -> float:
    """Measure peak memory in a fresh process; NaN where it cannot be read."""
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, image)
        program = (
            "import pathlib, sys; from voxseg.bench.slic import peak_bytes;"
            "tool, path, n, c = sys.argv[1:];"
            "print(peak_bytes(tool, pathlib.Path(path), int(n), float(c)))"
        )
        words = (tool, str(path), str(bench.n_segments), repr(compactness))
        answer = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
        )
    if answer.returncode:
        return math.nan
    return round(int(answer.stdout) / image.size, 1)


def _resident(field: str) -> int:
    """Bytes of this process's resident memory, now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _sweep(
    bench: SlicBench,
    image: Image,
    n_segments: int,
    compactness: dict[str, float],
    notify: Callable[[str], None],
) -> list[Sweep]:
    """Time against voxels at a fixed size of supervoxels, and against supervoxels."""
    voxels: dict[str, list[tuple[float, float]]] = {tool: [] for tool in bench.tools}
    numbers: dict[str, list[tuple[float, float]]] = {tool: [] for tool in bench.tools}
    per_segment = image.size / n_segments
    for tool in bench.tools:
        for part in (0.03, 0.1, 0.3, 1.0):
            notify(f"{tool}, {part:.0%} of the voxels")
            cut = _centre(image, round(part * image.size))
            count = max(1, round(cut.size / per_segment))
            voxels[tool].append((cut.size, _seconds(tool, cut, count, compactness[tool])))
        for factor in (0.25, 1, 4, 16, 64):
            count = round(n_segments * factor)
            if 1 <= count <= image.size / _FEWEST:
                notify(f"{tool}, {count} supervoxels")
                numbers[tool].append((count, _seconds(tool, image, count, compactness[tool])))
    return [
        Sweep(f"{per_segment:.0f} voxels per supervoxel", "voxels", "seconds", voxels),
        Sweep(f"{image.size:,} voxels", "supervoxels", "seconds", numbers),
    ]


def _seconds(tool: str, image: Image, n_segments: int, compactness: float) -> float:
    """Best of two runs."""
    best = math.inf
    for _ in range(2):
        start = time.perf_counter()
        _run(tool, image, n_segments, compactness)
        best = min(best, time.perf_counter() - start)
    return best


def _image(bench: SlicBench) -> Image:
    """Simulate the volume, or read it and cut it to what is not 0."""
    if bench.image is None:
        return simulated_volume(bench.shape, bench.seed)
    # Here, so that the other benchmarks run where nibabel is missing.
    from voxseg.data.volume import read_image

    array = read_image(bench.image).array
    box = ndimage.find_objects((array != 0).astype(np.uint8))
    return _to_unit(np.ascontiguousarray(array[box[0]] if box else array))


def _to_unit(image: Image) -> Image:
    """Bring intensities to [0, 1], in place."""
    image -= image.min()
    image /= float(image.max()) or 1.0
    return image


def _centre(image: Image, num_voxels: int) -> Image:
    """Cut the middle out of an image, with at most about so many voxels."""
    part = min(1.0, (num_voxels / image.size) ** (1 / 3))
    sizes = [max(1, round(n * part)) for n in image.shape]
    cut = tuple(
        slice((n - size) // 2, (n - size) // 2 + size)
        for n, size in zip(image.shape, sizes, strict=True)
    )
    return np.ascontiguousarray(image[cut])
