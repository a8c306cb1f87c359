"""Print docs/dicom_cases.md: what becomes of valid and invalid DICOM series, by the tag oracle.

python benchmarks/dicom_cases.py > docs/dicom_cases.md

Generated cases always run. Real ones run where ANOMALYCLIP_TEST_DATA names the folder that holds them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pydicom

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from dicom_factory import CASES, Case
from dicom_oracle import Outcome, outcome, stored_frames_or_none

from anomalyclip_monai.data.dicom_headers import is_dicom

REAL = Path(os.environ.get("ANOMALYCLIP_TEST_DATA", "absent")) / "dicom"
PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"

INTRODUCTION = """\
Printed by `python benchmarks/dicom_cases.py`. The d-cases are generated (`tests/data/dicom_factory.py`),
each from a good series by breaking one thing, and so are the g-cases. The r-cases are public files, run
where they are at hand. *exact*: every stored frame is found by its content at the place that its own tags
give, to 0.05 mm at the corners; where there are several volumes at the same positions, each is read with
`--volume N`. *refused*: one line that starts with the code.

What the values mean:

- Pixel Padding Value and Range Limit: padding reads as air, -1000 HU or darker in CT and black elsewhere, whether the
  header writes it signed or unsigned. Headers also name values of tissue: what counts is padding that reaches the edge
  of a slice in one piece, or that is far from all other values. `scores.json` says so where padding was bright.
- Rescale slope and intercept that less than half of the slices lack are taken from the others where these are all the
  same, with a warning; else the series is refused (`E_PIXELS`). Where no slice has them, stored values are kept.
- A link to a file is that file. Links to folders and hidden folders are not entered, and links that lead nowhere are
  counted in a warning. A FIFO or a device is never opened.

Whose the results are: patient, study and geometry of `heatmap.dcm` and `mask.dcm` come from the read that gave the
pixels. A file that is replaced before it is read is refused, one that is replaced later changes nothing. The texts
keep their stored bytes and character set. Slices of two patients or studies in one series are refused (`E_PATIENT`).
Of Modality and Body Part Examined only the standard's defined terms reach a line, a preset's reason or a file.

Bounds: 256 MiB of inflated data set and 500,000 elements a file (`E_TOO_LARGE`), 8 seconds for a frame of JPEG
lossless from the moment its decoder is ready (`E_TIMEOUT`). Zip archives: stored and deflated entries only, 16 GiB and
100,000 entries (`E_ARCHIVE`).
"""

# Case, its file or folder, and the code of the refusal; None: valid.
PUBLIC: tuple[tuple[str, Path | None, str | None], ...] = (
    ("r01_ct_axial", None, None),
    ("r02_ct_with_DICOMDIR_file", None, None),
    ("r03_ct_tilt_GE", None, "E_"),
    ("r04_ct_tilt_Philips_neg", None, None),
    ("r05_ct_tilt_Philips_pos", None, None),
    ("r06_mr_sag_HFS", None, None),
    ("r07_mr_sag_HFDR", None, None),
    ("r08_mr_sag_oblique_UIH", None, None),
    ("r09_mr_mosaic_Siemens", None, "E_MOSAIC"),
    ("r10_mr_vframe_UIH", None, "E_MOSAIC"),
    ("r11_mr_fmri4d_GE", None, None),
    ("r12_mr_dwi2d_Siemens", None, None),
    ("r13_mr_2echo", None, None),
    ("r14_mr_phase_rescale", None, None),
    ("r15_enh_mr_SiemensXA_1file", REAL / "dcm_qa_enh/In/Siemens/XA10/6_1.dcm", None),
    ("r16_enh_mr_SiemensXA_4files", REAL / "dcm_qa_enh/In/Siemens/XA10", None),
    ("r17_enh_mr_Philips_multi", REAL / "dcm_qa_enh/In/Philips", None),
    ("r18_enh_mr_Philips_fieldmap_mag_ph", None, None),
    ("r19_enh_mr_Philips_pCASL", None, None),
    ("r20_enh_mr_Philips_pCASL_real", None, None),
    ("r21_enh_ct", None, None),
    ("r22_ct_secondary_mixed_RGB_mono", None, None),
    ("r23_pydicom_ct5n", PACKAGED / "dicomdirtests/98892001/CT5N", None),
    ("r24_pydicom_mr700_localizer", PACKAGED / "dicomdirtests/98892003/MR700", None),
    ("r25_single_slice_ct", PACKAGED / "CT_small.dcm", None),
    ("r26_rtdose", PACKAGED / "rtdose.dcm", "E_NOT_IMAGE"),
    ("r27_us_ybr_multiframe", PACKAGED / "examples_ybr_color.dcm", None),
    ("r28_color_us3d_jpeg", None, None),
    ("r29_dicom_SEG_liver", PACKAGED / "liver_1frame.dcm", "E_NOT_IMAGE"),
    ("r30_mr_cor_mosaic", None, "E_MOSAIC"),
    *(
        (f"real: {name}", REAL / name, code)
        for name, code in (
            ("sts001_sarcoma_rtstruct/CT", None),
            ("sts001_sarcoma_rtstruct/MR_T1", None),
            ("dcmqi_seg/ct-3slice", None),
            ("dcmqi_seg/23x38x3/image", None),
            ("dcmqi_seg/23x38x3/multiframe", None),
            ("dcmqi_seg/24x38x3/image", None),
            ("dcmqi_seg/24x38x3/multiframe", None),
            ("dicom2nifti_tests/generic/anatomical/001", None),
            ("dicom2nifti_tests/generic/anatomical/001_implicit", None),
            ("dicom2nifti_tests/generic/anatomical/002_non_isotropic", None),
            ("dicom2nifti_tests/generic/compressed/001", None),
            ("dicom2nifti_tests/generic/compressed_j2k/001", None),
            ("dicom2nifti_tests/generic/compressed_jpeg/001", None),
            ("dicom2nifti_tests/generic/compressed_jpegls/001", None),
            ("dicom2nifti_tests/generic/compressed_rle/001", None),
            ("dicom2nifti_tests/generic/rgb/001", None),
            ("dicom2nifti_tests/failing/gantrytilting/001", None),
            ("dicom2nifti_tests/failing/slicecount/001", None),
            ("dicom2nifti_tests/failing/notavolume/001", None),
            ("dicom2nifti_tests/failing/sliceincrement/001", "E_MISSING_SLICES"),
            ("dicom2nifti_tests/failing/sliceincrement/002", "E_MISSING_SLICES"),
            ("dicom2nifti_tests/failing/sliceorientation/001", "E_MIXED_ORIENTATION"),
        )
    ),
)


def main() -> None:
    print("# DICOM cases\n")
    print(INTRODUCTION)
    print("| case | source | should be | is | noted |\n|---|---|---|---|---|")
    tally: Counter[str] = Counter()
    rows = [
        *((case.name, case, None) for case in CASES),
        *((name, code, path) for name, path, code in PUBLIC),
    ]
    for name, case, path in rows:
        print(_row(name, case, path, tally))
    print(f"\n{tally['valid exact']} valid cases exact, {tally['valid wrong']} not;", end=" ")
    print(f"{tally['bad refused']} invalid cases refused, {tally['bad loaded']} loaded anyway;", end=" ")
    print(f"{tally['not run']} not run.")


def _row(name: str, case: Case | str | None, path: Path | None, tally: Counter[str]) -> str:
    code = case.code if isinstance(case, Case) else case
    wanted = f"refused {code if code != 'E_' else ''}".strip() if code else "exact"
    if isinstance(case, Case):
        with tempfile.TemporaryDirectory() as folder:
            case.make(Path(folder))
            archive = Path(folder) / "series.zip"
            result = outcome(archive if archive.exists() else Path(folder))
            stored = result.frames if archive.exists() else _stored(Path(folder)) - case.left
        source = "generated"
        stored -= name.startswith("d24")  # the SEG among the junk
    elif path is not None and path.exists():
        result, stored = outcome(path), _stored(path)
        source = "pydicom" if path.is_relative_to(PACKAGED) else f"`{path.relative_to(REAL)}`"
    else:
        tally["not run"] += 1
        return f"| {name} | not at hand | {wanted} | not run | |"
    return f"| {name} | {source} | {wanted} | {_verdict(result, stored, code, tally)} |"


def _stored(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    objects = [file for file in files if is_dicom(file)]
    images = [
        file
        for file in objects
        if pydicom.dcmread(file, stop_before_pixels=True, force=True).get("Modality") != "RTSTRUCT"
    ]
    return sum(len(stored_frames_or_none(file)) for file in images)


def _verdict(result: Outcome, stored: int, code: str | None, tally: Counter[str]) -> str:
    if result.code:
        tally["bad refused" if code else "valid wrong"] += 1
        return f"refused {result.code} | {result.message.split(' (')[0]}"
    exact = result.frames == stored
    tally["bad loaded" if code else "valid exact" if exact else "valid wrong"] += 1
    notes = [f"{result.series} series"] if result.series > 1 else []
    notes += [f"{result.volumes} volumes"] if result.volumes > result.series else []
    notes += dict.fromkeys(result.warnings)
    return f"{'exact' if exact else f'{result.frames} of {stored} frames'} | {'; '.join(notes)}"


if __name__ == "__main__":
    main()
