"""A whole volume end to end: seconds of each stage, peak memory, and the inferer against MONAI's own.

    python benchmarks/volume.py [--shape 182 218 182] [--threads 2]

Prints one table. The last column are ratios taken in the same run; only these compare between machines.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(182, 218, 182))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    start = time.perf_counter()
    import nibabel as nib
    import numpy as np
    import torch
    from monai.inferers import SliceInferer
    from scipy.ndimage import zoom

    import anomalyclip_monai as ac
    from anomalyclip_monai.api import Pipeline
    from anomalyclip_monai.data.phantom import head_phantom
    from anomalyclip_monai.inferers import SliceAnomalyInferer
    from anomalyclip_monai.outputs import Result

    torch.set_num_threads(arguments.threads)
    imports, imports_mb = time.perf_counter() - start, peak_mb()

    phantom = head_phantom()
    factors = np.array(arguments.shape) / phantom.data.shape
    data = zoom(phantom.data, factors, order=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        nib.save(nib.Nifti1Image(data, np.diag([-1.0, 1.0, 1.0, 1.0])), path)

        start = time.perf_counter()
        pipeline = Pipeline("tiny", device="cpu")
        loading = time.perf_counter() - start

        start = time.perf_counter()
        record = pipeline.preprocessing({"image": str(path), "case": "volume"})
        reading = time.perf_counter() - start

        image = record["image"][None]
        start = time.perf_counter()
        record["pred"] = pipeline.inferer(image, pipeline.network)[0]
        inferring = time.perf_counter() - start

        start = time.perf_counter()
        for step in pipeline.postprocessing:
            record = step(record)
        finding = time.perf_counter() - start

        start = time.perf_counter()
        result = Result.from_record(record, model={}, device="cpu")
        result.save(folder)
        writing = time.perf_counter() - start
    whole_mb = peak_mb()

    del record, result
    stock = SliceInferer(roi_size=(-1, -1), spatial_dim=2, sw_batch_size=16)
    one_plane = {}
    for name, inferer in (("stock", stock), ("own", SliceAnomalyInferer())):  # both along one axis
        start = time.perf_counter()
        with torch.no_grad():
            inferer(image.as_tensor(), pipeline.network)
        one_plane[name] = time.perf_counter() - start

    alone = Pipeline("tiny", device="cpu", fast=True)
    start = time.perf_counter()
    alone.inferer(image, alone.network)
    fast = time.perf_counter() - start

    total = loading + reading + inferring + finding + writing
    print(f"anomalyclip-monai {ac.__version__}, {' x '.join(map(str, arguments.shape))}, {arguments.threads} threads")
    print("| stage | seconds | share |\n|---|---|---|")
    stages = {"load model": loading, "read and scale": reading, "slices through the network": inferring,
              "threshold and lesions": finding, "write files": writing}  # fmt: skip
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.1f} | {seconds / total:.2f} |")
    print(f"| all (after {imports:.1f} s of imports) | {total:.1f} | 1 |")
    print(f"\nseconds of SliceAnomalyInferer / MONAI SliceInferer: {one_plane['own'] / one_plane['stock']:.2f}")
    print(f"seconds of slices, all networks / the first alone (--fast, {fast:.1f} s): {inferring / fast:.2f}")
    print(f"peak memory / after imports: {whole_mb / imports_mb:.2f} ({whole_mb:.0f} MB / {imports_mb:.0f} MB)")


if __name__ == "__main__":
    main()
