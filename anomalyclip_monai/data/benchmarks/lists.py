"""Data sets told by a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from anomalyclip_monai.data.benchmarks.layouts import DEEPER, Table
from anomalyclip_monai.data.benchmarks.naming import listed, stem_of
from anomalyclip_monai.data.benchmarks.sample import Sample
from anomalyclip_monai.data.photo import is_photo
from anomalyclip_monai.exceptions import NoInputError, UsageError

SEPARATORS = ",;\t"


def read_rows(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each row, columns in lower case, blanks around cells removed.

    Raises:
        NoInputError: the file cannot be read, or a column is missing (``E_CSV``).
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NoInputError("E_CSV", "not a text file in UTF-8", path, "save it as CSV in UTF-8") from error
    try:
        return _rows(text, path, needed)
    except csv.Error as error:
        raise NoInputError("E_CSV", f"no table: {error}", path, "correct the list") from error


def _rows(text: str, path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    header = next(iter(text.splitlines()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=header.count))
    columns = [cell.strip().lower() for cell in next(reader, [])]
    if missing := [name for name in needed if name not in columns]:
        what = f"no column {' and '.join(missing)}, its first line is {header[:80]!r}"
        raise NoInputError("E_CSV", what, path, f"name the columns in the first line: {', '.join(needed)}")
    return [
        (reader.line_num, dict(zip(columns, (cell.strip() for cell in cells), strict=False)))
        for cells in reader
        if any(cell.strip() for cell in cells)
    ]


def samples_of_table(
    table: Table, dataset: str, folder: Path, files: Sequence[str], split: str
) -> tuple[Path, list[Sample]] | None:
    """The set's folder and the images that its CSV file lists; None where that file is not there.

    Args:
        table: the file and what its columns mean.
        dataset: category of images without one.
        folder: where to look, or the file itself.
        files: paths of all files below the folder.
        split: ``all``, or the rows with this split where there is such a column.

    Raises:
        NoInputError: a row is wrong (``E_CSV``, with its line).
        UsageError: there is no such split (``E_SPLIT``).
    """
    if folder.is_file():
        if table.file and folder.name != PurePosixPath(table.file).name:
            return None
        home = folder.parents[table.file.count("/")]
        return home, _samples_of_list(table, dataset, home, folder, split)
    if (found := table_in(table, files)) is None:
        return None
    home = folder / found.removesuffix(table.file)
    return home, _samples_of_list(table, dataset, home, folder / found, split)


def table_in(table: Table, files: Sequence[str]) -> str | None:
    """The path of a set's CSV file, the least deep one."""
    found = [path for path in files if table.file and f"/{path}".endswith(f"/{table.file}")]
    first = min(found, key=lambda path: (path.count("/"), path), default=None)
    return None if first is None or first.count("/") - table.file.count("/") > DEEPER else first


def _samples_of_list(table: Table, dataset: str, home: Path, path: Path, split: str) -> list[Sample]:
    """The images that a CSV file lists, below a folder."""
    rows = read_rows(path, (table.image,))
    splits = {row[table.split].lower() for _, row in rows if row.get(table.split)}
    if split != "all" and (splits or split != "test"):
        rows = [(line, row) for line, row in rows if row.get(table.split, "").lower().startswith(split)]
        if not rows:
            choices = ", ".join([*sorted(splits or {"test"}), "all"])
            raise UsageError("E_SPLIT", f"the data set has no split {split!r}", path, f"choose from: {choices}")
    if not rows:
        raise NoInputError("E_CSV", "the list is empty", path, "list one image a line")
    numbered = _by_number(home) if table.by_number else {}
    samples, wrong = [], []
    for line, row in rows:
        try:
            samples.append(_sample(table, dataset, home, row, numbered))
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    if wrong:
        raise NoInputError("E_CSV", listed(wrong), path, "correct the list")
    counts = Counter(sample.image for sample in samples)
    if twice := sorted({sample.name for sample in samples if counts[sample.image] > 1}):
        raise NoInputError("E_CSV", f"images are listed twice: {listed(twice)}", path, "list each once")
    return samples


def _sample(table: Table, dataset: str, home: Path, row: Mapping[str, str], numbered: Mapping[int, Path]) -> Sample:
    """A row as a sample.

    Raises:
        ValueError: what is wrong with it.
    """
    image = _image(table, home, row.get(table.image, ""), numbered)
    masks = tuple(_existing(home, cell, "mask") for cell in row.get(table.mask, "").split("|") if cell.strip())
    word = row.get(table.label, "").lower()
    if not word and not masks:
        raise ValueError("neither a label nor a mask")
    if word not in ("", *table.normal, *table.abnormal):
        raise ValueError(f"the label {word!r} is neither normal nor abnormal")
    label = int(word in table.abnormal) if word else None
    name = stem_of(image.relative_to(home).as_posix()) if image.is_relative_to(home) else stem_of(image.name)
    return Sample(
        name=name,
        image=image,
        label=label,
        masks=masks,
        category=row.get(table.category) or dataset,
        group=row.get(table.group) or name,
        volume=not is_photo(image),
        mask_rule=table.mask_rule,
    )


def _image(table: Table, home: Path, cell: str, numbered: Mapping[int, Path]) -> Path:
    if not cell:
        raise ValueError("no image")
    if not table.by_number:
        return _existing(home, cell, "image")
    if not cell.isdecimal() or int(cell) not in numbered:
        raise ValueError(f"there is no image with the number {cell}")
    return numbered[int(cell)]


def _existing(home: Path, cell: str, what: str) -> Path:
    path = Path(os.path.normpath(home / cell.strip().replace("\\", "/")))
    if not os.path.exists(path):
        raise ValueError(f"there is no {what} {cell.strip()}")
    return path


def _by_number(home: Path) -> dict[int, Path]:
    """Photos below a folder whose stem is a number."""
    return {int(path.stem): path for path in sorted(home.rglob("*")) if is_photo(path) and path.stem.isdecimal()}
