"""Series with one broken thing each: read to the last frame, or refused with one coded line."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_factory import CASES, Case
from dicom_oracle import outcome

from anomalyclip_monai.data.dicom_headers import is_dicom


def _frames(folder: Path) -> int:
    from dicom_oracle import stored_frames_or_none

    return sum(len(stored_frames_or_none(path)) for path in folder.rglob("*") if path.is_file() and is_dicom(path))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case, tmp_path: Path) -> None:
    case.make(tmp_path)
    archive = tmp_path / "series.zip"
    result = outcome(archive if archive.exists() else tmp_path)
    if case.code is not None:
        assert result.code == case.code, result.message
        assert "\n" not in result.message
        assert "marker" not in result.message.lower()
        return
    assert result.code is None, result.message
    assert (result.series, result.volumes) == (case.series, case.series * case.volumes)
    if not archive.exists():
        # Slices that were left out on purpose, and the SEG among the junk.
        expected = _frames(tmp_path) - case.left - (case.name == "d24_junk_files")
        assert result.frames == expected
