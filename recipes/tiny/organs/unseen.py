"""Organs that were never trained on: a third network for every fold, measured on the organs it went without."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from anomalyclip_monai import resources
from anomalyclip_monai.engines.evaluation import bundle_evaluator
from anomalyclip_monai.exceptions import NoInputError
from anomalyclip_monai.files import write_text
from anomalyclip_monai.outputs.report.content import Report
from anomalyclip_monai.weights.choice import choose_model
from recipes.evidence import Part
from recipes.evidence.parts import Provenance, held_out_part
from recipes.tiny.organs.learning import Plan
from recipes.tiny.organs.network import make_network
from recipes.tiny.organs.sets import FIRST_ORGANS, FOLDS
from recipes.tiny.organs.store import Features
from recipes.tiny.organs.weights import FOLDER

LIST = "organs.csv"
"""Of a folder with lesions of many organs."""


def measure_unseen(
    features: Features,
    trunk: Mapping[str, Tensor],
    text: Tensor,
    organs: Path,
    out: Path,
    *,
    seeds: Sequence[Sequence[int]] = ((0, 1, 2, 3), (4, 5, 6, 7)),
    plan: Plan | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = lambda line: None,
) -> Part:
    """Train and measure every fold of :data:`~recipes.tiny.organs.sets.FOLDS`; what was done is not done again.

    Args:
        features: what to learn from.
        trunk: timm's tensors of the backbone.
        text: (2, D) normalised text features of the normal and the abnormal prompt.
        organs: folder of all measured sets with their ``organs.csv``.
        out: bundles, sets and reports of the folds go below it.
        seeds: of the members of each training of a fold.
        plan: of a member, but for its seed.
        device: on which is measured.
        log: is told of every member and fold.

    Raises:
        NoInputError: a measured set is not in the folder (``E_NO_INPUT``).
    """
    reports: dict[str, list[Report]] = {}
    chosen = {fold: choose_sets(organs, names, out / fold / "organs") for fold, names in FOLDS.items()}
    for fold, names in FOLDS.items():
        for several in seeds:
            folder = out / fold / f"seeds_{'_'.join(map(str, several))}"
            bundle = link_bundle(resources.bundle_root(resources.DEFAULT_BUNDLE), folder)
            make_network(features, trunk, text, bundle / FOLDER, seeds=several, measured=names, plan=plan, log=log)
            report = evaluate(bundle, chosen[fold], folder, device)
            reports.setdefault(",".join(names), []).append(report)
            log(f"{fold}, seeds {', '.join(map(str, several))}: measured on {', '.join(names)}")
    return held_out_part(reports, Provenance.now(), FIRST_ORGANS)


def link_bundle(source: Path, folder: Path) -> Path:
    """A copy of a bundle in a folder, whose files are the same ones on the disk, without the third network."""
    target = folder / source.name
    third = Path(FOLDER).name
    shutil.copytree(
        source, target, copy_function=_link, ignore=shutil.ignore_patterns(third, "__pycache__"), dirs_exist_ok=True
    )
    return target


def _link(source: str, target: str) -> None:
    if os.path.exists(target):
        return
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


def choose_sets(organs: Path, names: Collection[str], folder: Path) -> Path:
    """A folder with some of the measured sets: their rows of ``organs.csv``, and links to the images.

    Raises:
        NoInputError: one is not there (``E_NO_INPUT``).
    """
    try:
        with (organs / LIST).open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["category"] in names]
    except (OSError, KeyError) as error:
        raise NoInputError("E_NO_INPUT", f"no {LIST} ({error})", organs, "give the folder of the organs") from error
    if missing := sorted(set(names) - {row["category"] for row in rows}):
        raise NoInputError("E_NO_INPUT", f"no images of {', '.join(missing)}", organs / LIST, "add them")
    folder.mkdir(parents=True, exist_ok=True)
    for top in sorted({Path(row[column]).parts[0] for row in rows for column in ("image", "mask") if row[column]}):
        if not (folder / top).is_symlink():
            (folder / top).symlink_to((organs / top).resolve(), target_is_directory=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / LIST, text.getvalue())
    return folder


def evaluate(bundle: Path, organs: Path, out: Path, device: str) -> Report:
    """The report of a bundle on a folder of organs; one that is there already, of the same files, is read."""
    given = {"dataset_name": "organs", "dataset_dir": str(organs), "output_dir": str(out), "device": device}
    evaluator = bundle_evaluator(choose_model(str(bundle)), given)
    finished = evaluator.evaluation.finished()
    if finished is None:
        evaluator.run()
        finished = evaluator.report
    return finished
