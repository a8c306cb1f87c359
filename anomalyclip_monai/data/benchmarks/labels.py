"""Which labels of a Medical Segmentation Decathlon task are lesion."""

from __future__ import annotations

import json
import re
from pathlib import Path

from anomalyclip_monai.data.masks import MaskRule
from anomalyclip_monai.exceptions import NoInputError

LESION = re.compile("tumou?r|cancer|lesion|o?edema|necro|enhanc|metasta|stroke|h[ae]+morrhage", re.IGNORECASE)
"""Names of labels that are lesions; liver, pancreas and vessels are labels as well."""


def lesion_labels(folder: Path) -> MaskRule:
    """The values that ``dataset.json`` calls a lesion.

    Raises:
        NoInputError: there is no such file, or it names no lesion (``E_LAYOUT``).
    """
    path = folder / "dataset.json"
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        values = tuple(sorted(int(value) for value, name in labels.items() if LESION.search(str(name))))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        what = "dataset.json with the names of the labels is missing or damaged"
        raise NoInputError("E_LAYOUT", what, folder, "put the set's dataset.json there") from error
    if not values:
        names = ", ".join(map(str, labels.values()))
        raise NoInputError("E_LAYOUT", f"none of the labels is a lesion: {names}", path, "choose another task")
    return values
