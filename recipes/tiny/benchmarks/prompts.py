"""What learned prompts add on an organ that the backbone never saw, against hand-written sentences.

    python -m recipes.tiny.benchmarks.prompts TRAIN DEV -o OUT --left-out ORGAN=RUN ORGAN=RUN [--images 100] [--seeds 3]

A RUN is a training by ``python -m recipes.tiny train --leave-out ORGAN``. Prompts are learned by ``anomalyclip train``
from pictures of the organ's training patients in TRAIN, as many with as without a lesion where there are both, and
measured on pictures of its held-out patients and on the sets of DEV that show the organ. Learned is the mean over the
seeds; the difference has a 95 % interval over the same bootstrap draws for both. OUT gets pictures, prompts, reports
and ``table.md``; what is there is not done again.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyclip_monai import resources
from anomalyclip_monai.data.benchmarks import LAYOUTS, find_all
from anomalyclip_monai.engines.evaluation.methods import MODEL
from anomalyclip_monai.weights.choice import ModelChoice
from recipes.tiny.benchmarks.embedded import (
    MEASURED_BY,
    MEASURES,
    Part,
    bundle_with,
    evaluate,
    find_run,
    markdown,
    organ_and_run,
    seed_of,
    value_of,
    write_if_new,
    write_list,
)
from recipes.tiny.sources import DOMAIN_OF, Picture, Subject, read_subjects

HAND_WRITTEN = "hand_written"

HELD_OUT_MEASURES = ("image_auroc", "pixel_auroc", "pixel_pro_exact", "pointing", "dice")


@dataclass(frozen=True)
class Row:
    """One measure of one set."""

    organ: str
    learned_from: str
    title: str
    samples: int
    measure: str
    learned: float
    hand_written: float
    interval: tuple[float, float] | None

    @property
    def cells(self) -> dict[str, str]:
        """Column -> text, in hundredths."""
        interval = " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in self.interval)) if self.interval else ""
        return {
            "left out": self.organ,
            "learned from": self.learned_from,
            "measured on": f"{self.title} ({self.samples})",
            "measure": self.measure,
            "learned": f"{100 * self.learned:.1f}",
            "hand-written": f"{100 * self.hand_written:.1f}",
            "difference [95 %]": f"{100 * (self.learned - self.hand_written):+.1f}{interval}",
        }


def pictures_of(subjects: Sequence[Subject]) -> Iterator[tuple[str, Picture]]:
    """All photos and slices with something on them whose lesions are known."""
    for subject in subjects:
        axis = subject.axes[-1]
        for index in subject.cuts[axis]:
            picture = subject.cut(axis, int(index))
            if not (picture.lesion == 2).any() and not picture.empty:
                yield f"{subject.name}_{index:03}", picture


def balanced(pictures: Sequence[tuple[str, Picture]], count: int) -> list[tuple[str, Picture]]:
    """At most ``count``, half of them without a lesion where there are enough."""
    order = [pictures[index] for index in np.random.default_rng(0).permutation(len(pictures))]
    ill = [entry for entry in order if entry[1].diseased]
    normal = [entry for entry in order if not entry[1].diseased]
    most = max(count - len(normal), count - count // 2)
    chosen = ill[:most]
    return chosen + normal[: count - len(chosen)]


def written(pictures: Sequence[tuple[str, Picture]], folder: Path) -> Path:
    """The pictures and masks as PNG files; -> their list."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, picture in pictures:
        image, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
        grey = picture.image.shape[2] == 1
        save(picture.image[..., 0] if grey else picture.image, image)
        if picture.diseased:
            save((picture.lesion == 1).astype(np.uint8) * 255, mask)
        truth = {"mask": mask.resolve(), "label": "abnormal"} if picture.diseased else {"mask": "", "label": "normal"}
        rows.append({"image": image.resolve(), **truth})
    return write_list(folder.with_suffix(".csv"), rows)


def save(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a PNG, unless it is there."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, "PNG")
    write_if_new(path, content.getvalue())


def learn(pictures: Path, bundle: Path, out: Path, seeds: int) -> list[Path]:
    """``anomalyclip train``, which does not repeat what is there; -> the prompts of every seed."""
    command = [sys.executable, "-m", "anomalyclip_monai.cli", "train", "csv", str(pictures), "-o", str(out)]
    command += ["--model", str(bundle), "--seeds", str(seeds), "--quiet"]
    subprocess.run(command, check=True)
    return sorted(out.glob("model.pt" if seeds == 1 else "seed_*/model.pt"))


def described(pictures: Sequence[tuple[str, Picture]]) -> str:
    """``50 with and 40 without a lesion``."""
    ill = sum(picture.diseased for _, picture in pictures)
    return f"{ill} with and {len(pictures) - ill} without a lesion"


def rows_of(
    organ: str, learned_from: str, part: Part, choice: ModelChoice, prompts: Sequence[Path], out: Path
) -> Iterator[Row]:
    """Both kinds of prompts on one set."""
    options: dict[str, Any] = {"methods": [MODEL, HAND_WRITTEN], "seeds": [str(file) for file in prompts]}
    if part.dataset == "csv":
        options["preset"] = "photo"
    report, _ = evaluate(part, choice, out, options)
    draws = np.load(out / part.dataset / "bootstrap.npz")
    names = HELD_OUT_MEASURES if part.dataset == "csv" else MEASURES[part.name]
    for name in names:
        learned, by_hand = (value_of(report, name, method=method) for method in (MODEL, HAND_WRITTEN))
        if learned is None or by_hand is None:
            continue
        interval = None
        if f"{MODEL}/{name}" in draws:
            low, high = np.nanpercentile(draws[f"{MODEL}/{name}"] - draws[f"{HAND_WRITTEN}/{name}"], [2.5, 97.5])
            interval = float(low), float(high)
        title = report["measure_titles"].get(name, name)
        yield Row(organ, learned_from, part.title, report["samples"]["count"], title, learned, by_hand, interval)


def measure_organ(organ: str, run: Path, arguments: argparse.Namespace) -> list[Row]:
    """Learn and measure with the backbone of one run."""
    out = arguments.output / organ
    subjects = [s for s in read_subjects(arguments.train) if s.domain == DOMAIN_OF[organ]]
    learned = balanced(list(pictures_of([s for s in subjects if not s.validates])), arguments.images)
    held_out = list(pictures_of([s for s in subjects if s.validates]))
    parts = [Part(name, LAYOUTS[name].title, name, path) for name, path in find_all(arguments.data).items()]
    parts = [part for part in parts if part.name in MEASURED_BY[organ]]
    if any(picture.diseased for _, picture in held_out):
        parts.insert(0, Part("held_out", "held-out patients", "csv", written(held_out, out / "held_out")))
    rows: list[Row] = []
    with bundle_with(seed_of(find_run(run, 1, organ)).final, resources.bundle_root("tiny")) as choice:
        prompts = learn(written(learned, out / "learned"), choice.root, out / "prompts", arguments.seeds)
        for part in parts:
            rows += rows_of(organ, described(learned), part, choice, prompts, out / "reports" / part.name)
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("data", type=Path, metavar="DEV")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--left-out", type=organ_and_run, nargs="+", required=True, metavar="ORGAN=RUN")
    parser.add_argument("--images", type=int, default=100, metavar="N", help="to learn from (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of the prompts (default: %(default)s)")
    arguments = parser.parse_args()
    rows = [row for organ, run in arguments.left_out for row in measure_organ(organ, run, arguments)]
    lines = markdown([row.cells for row in rows])
    (arguments.output / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
