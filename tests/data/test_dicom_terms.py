from __future__ import annotations

import pytest

from anomalyclip_monai.data.dicom_terms import BODY_PARTS, MODALITIES, defined_body_part, defined_modality
from anomalyclip_monai.outputs.dicom import REGIONS
from anomalyclip_monai.transforms.preset import HEAD_PARTS


@pytest.mark.parametrize("text", ["CT", "MR", "PT", "NM", "US", "DX", "CR", "MG", "ES", "XC", "OT", "M3D"])
def test_modalities_that_are_defined(text: str) -> None:
    assert defined_modality(text) == text


@pytest.mark.parametrize("text", ["", "ct", "MULLER", "MRI", "CT\x1b[31m", "CT\\MR", "JOHN DOE"])
def test_what_is_no_modality(text: str) -> None:
    assert defined_modality(text) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BRAIN", "BRAIN"),
        ("Brain", "BRAIN"),
        ("HEAD NECK", "HEADNECK"),
        ("head_neck", "HEADNECK"),
        ("C-SPINE", "CSPINE"),
        ("THORAX", "CHEST"),
        ("3RDVENTRICLE", "3RDVENTRICLE"),
        ("", ""),
        ("DOE JOHN", ""),
        ("MUELLER", ""),
        ("BRAIN DOE", ""),
        ("HEAD\nE_FORGED", ""),
        ("BRAİN", ""),
    ],
)
def test_body_parts(text: str, expected: str) -> None:
    assert defined_body_part(text) == expected


def test_words_that_other_modules_look_for_can_come() -> None:
    assert set(REGIONS) <= BODY_PARTS
    assert HEAD_PARTS <= BODY_PARTS
    assert all(word.isascii() and word.isalnum() and len(word) <= 16 for word in BODY_PARTS | MODALITIES)
