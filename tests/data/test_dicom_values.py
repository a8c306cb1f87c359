"""What stored values mean: rescale that some slices lack, and padding that must look like air."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import COLUMNS, ROWS, enhanced, image, set_pixels, stack, write
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from anomalyclip_monai.data.dicom_headers import SliceHeader
from anomalyclip_monai.data.dicom_series import read_series, scan
from anomalyclip_monai.data.dicom_values import agreed_lines, padding_range
from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError

# Values that no device should write; pydicom says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*VR (CS|UI|DS|IS|US|SS):UserWarning")

OUTSIDE = np.hypot(*np.meshgrid(np.arange(ROWS) - 9.5, np.arange(COLUMNS) - 11.5, indexing="ij")) > 10.5
"""(H, W): the corners of a slice outside a round field of view."""


def read_one(path: Path) -> Volume:
    (series,), _ = scan(path)
    return read_series(series)


def headers(*rescales: tuple[float | None, float | None]) -> list[SliceHeader]:
    return [SliceHeader(Frame(Path(f"{k}.dcm")), rescale=rescale) for k, rescale in enumerate(rescales)]


class TestRescale:
    def test_own_values_of_each_slice(self) -> None:
        lines, notes = agreed_lines(headers((1, -1024), (2, 5), (0.5, 0)))
        assert lines == [(1, -1024), (2, 5), (0.5, 0)]
        assert notes == ()

    @pytest.mark.parametrize("lacking", [(None, None), (1, None)])
    def test_what_some_lack_is_that_of_the_others(self, lacking: tuple[float | None, float | None]) -> None:
        lines, notes = agreed_lines(headers((1, -1024), lacking, (1, -1024)))
        assert lines == [(1, -1024)] * 3
        assert notes == ("1 of 3 slices have no rescale: that of the others was taken.",)

    @pytest.mark.parametrize("same", [(None, None), (2.0, None), (None, -3.0)])
    def test_what_all_lack_is_neutral(self, same: tuple[float | None, float | None]) -> None:
        assert agreed_lines(headers(same, same)) == ([(same[0] or 1.0, same[1] or 0.0)] * 2, ())

    def test_own_slopes_without_any_intercept(self) -> None:
        assert agreed_lines(headers((2, None), (3, None))) == ([(2, 0), (3, 0)], ())

    def test_a_neutral_rescale_beside_none_is_the_same(self) -> None:
        assert agreed_lines(headers((1, 0), (None, None), (None, None))) == ([(1, 0)] * 3, ())
        assert agreed_lines(headers((1, -1024), (None, -1024))) == ([(1, -1024)] * 2, ())

    @pytest.mark.parametrize(
        "rescales",
        [
            [(2, 0), (3, 0), (4, 0), (None, None)],  # which of the slopes?
            [(1, -1024), (None, None)],  # no more than half of the slices
            [(1, -1024), (1, -1024), (2, None)],  # another slope
            [(2, None), (None, None), (None, None)],
        ],
    )
    def test_what_cannot_be_told_is_refused(self, rescales: list[tuple[float | None, float | None]]) -> None:
        with pytest.raises(CaseError, match=r"E_PIXELS: \d of \d slices have no rescale") as caught:
            agreed_lines(headers(*rescales))
        missing = next(k for k, rescale in enumerate(rescales) if None in rescale)
        assert f"({missing}.dcm)" in str(caught.value)

    @pytest.mark.parametrize("bad", [(0, 0), (float("inf"), 0), (1, float("inf"))])
    def test_no_line_at_all_is_refused(self, bad: tuple[float, float]) -> None:
        with pytest.raises(CaseError, match="zero or not a number"):
            agreed_lines(headers((1, 0), bad))

    def test_series(self, tmp_path: Path) -> None:
        images = stack()
        write(tmp_path / "whole", images)
        del images[4].RescaleSlope, images[4].RescaleIntercept
        images[5].RescaleSlope = images[5].RescaleIntercept = None
        write(tmp_path / "part", images)
        whole, part = read_one(tmp_path / "whole"), read_one(tmp_path / "part")
        np.testing.assert_array_equal(whole.data, part.data)
        assert part.source.warnings == ("2 of 9 slices have no rescale: that of the others was taken.",)

    def test_frames_of_an_enhanced_object(self, tmp_path: Path) -> None:
        stored = np.full((4, ROWS, COLUMNS), 100)
        ds = enhanced([{"position": (0, 0, 3 * k), "slope": 2.0, "intercept": -3} for k in range(4)], stored=stored)
        del ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence
        write(tmp_path, [ds])
        volume = read_one(tmp_path)
        assert np.unique(volume.data).tolist() == [197.0]
        assert "1 of 4 slices" in volume.source.warnings[0]

    def test_a_ct_whose_stored_values_cannot_be_hu_is_told(self, tmp_path: Path) -> None:
        ds = image(0, stored=np.full((ROWS, COLUMNS), 24))
        del ds.RescaleSlope, ds.RescaleIntercept
        write(tmp_path, [ds])
        volume = read_one(tmp_path)
        assert np.unique(volume.data).tolist() == [24.0]
        assert "taken for HU" in volume.source.warnings[0]

    @pytest.mark.parametrize(("intercept", "said"), [(None, "has no Rescale Intercept"), (0, "is odd: its values")])
    def test_so_is_one_that_has_a_slope_alone(self, tmp_path: Path, intercept: int | None, said: str) -> None:
        ds = image(0, stored=np.full((ROWS, COLUMNS), 24))
        ds.RescaleSlope, ds.RescaleIntercept = 1, intercept
        write(tmp_path, [ds])
        assert said in read_one(tmp_path).source.warnings[0]

    @pytest.mark.parametrize("items", [[], [Dataset()]])
    def test_a_modality_lut_without_a_table_is_none(self, tmp_path: Path, items: list[Dataset]) -> None:
        ds = image(0, stored=np.full((ROWS, COLUMNS), 1000))
        ds.ModalityLUTSequence = Sequence(items)
        write(tmp_path, [ds])
        assert np.unique(read_one(tmp_path).data).tolist() == [-24.0]


class TestPaddingRange:
    @pytest.mark.parametrize(
        ("value", "limit", "signed", "bits", "expected"),
        [
            (-2000, None, True, 16, (-2000, -2000)),
            (63536, None, True, 16, (-2000, -2000)),  # written unsigned beside signed pixels
            (-2000, None, False, 16, (63536, 63536)),  # and the other way round
            (63536, None, False, 16, (63536, 63536)),
            (-32768, None, True, 16, (-32768, -32768)),
            (0, 5, False, 12, (0, 5)),
            (4095, 4000, False, 12, (4000, 4095)),  # MONOCHROME1: the limit is the lower one
            (-2000, None, True, 12, (-2000, -2000)),
            (63536, None, False, 12, None),  # in bits that hold no value
            (-32768, None, True, 12, None),
            (None, 5, False, 12, None),
        ],
    )
    def test_by_hand(
        self, value: int | None, limit: int | None, signed: bool, bits: int, expected: tuple[int, int] | None
    ) -> None:
        ds = Dataset()
        ds.PixelRepresentation = int(signed)
        for keyword, end in (("PixelPaddingValue", value), ("PixelPaddingRangeLimit", limit)):
            if end is not None:
                ds.add(DataElement(Tag(keyword), "SS" if end < 0 else "US", end))
        assert padding_range(ds, bits) == expected

    @pytest.mark.parametrize(("vr", "value"), [("LO", "none"), ("LO", ""), ("US", [1, 2]), ("UN", b"\1\2\3")])
    def test_what_is_no_number_names_no_padding(self, vr: str, value: Any) -> None:
        ds = Dataset()
        ds.add(DataElement(Tag("PixelPaddingValue"), vr, value))
        assert padding_range(ds, 16) is None

    def test_two_bytes_of_unknown_representation(self) -> None:
        ds = Dataset()
        ds.PixelRepresentation = 1
        ds.add(DataElement(Tag("PixelPaddingValue"), "UN", b"\x30\xf8"))
        assert padding_range(ds, 16) == (-2000, -2000)


def padded(
    folder: Path,
    padding: int,
    *,
    stored: np.ndarray | None = None,
    signed: bool = False,
    modality: str = "CT",
    named: int | None = None,
    change: Callable[[Dataset], None] | None = None,
    stored_bits: int = 0,
) -> Volume:
    """Read three slices whose corners hold ``padding``, which their headers name (or ``named``)."""
    images = []
    for ds in stack(count=3, modality=modality):
        rng = np.random.default_rng(int(ds.InstanceNumber))
        values = rng.integers(900, 1200, (ROWS, COLUMNS)) if stored is None else stored.copy()
        values[OUTSIDE] = padding
        set_pixels(ds, values, signed=signed, stored_bits=stored_bits)
        value = padding if named is None else named
        ds.add(DataElement(Tag("PixelPaddingValue"), "SS" if value < 0 else "US", value))
        if change is not None:
            change(ds)
        images.append(ds)
    write(folder, images)
    return read_one(folder)


class TestPadding:
    @pytest.mark.parametrize(
        ("padding", "named", "signed"),
        [(63536, 63536, False), (63536, -2000, False), (-2000, -2000, True), (-2000, 63536, True), (5000, 5000, True)],
    )
    def test_of_ct_is_air_or_darker(self, tmp_path: Path, padding: int, named: int, signed: bool) -> None:
        data = padded(tmp_path, padding, named=named, signed=signed).data[0]
        assert data[OUTSIDE.T].max() <= -1000
        assert data[~OUTSIDE.T].min() >= 900 - 1024

    @pytest.mark.parametrize("padding", [-32768, 32767, 0])
    def test_of_mr_is_black(self, tmp_path: Path, padding: int) -> None:
        def no_rescale(ds: Dataset) -> None:
            del ds.RescaleSlope, ds.RescaleIntercept

        data = padded(tmp_path, padding, signed=True, modality="MR", change=no_rescale).data[0]
        assert np.unique(data[OUTSIDE.T]).tolist() == [0.0]
        assert data[~OUTSIDE.T].min() >= 900

    def test_where_all_is_negative_it_is_no_brighter(self, tmp_path: Path) -> None:
        def negative(ds: Dataset) -> None:
            ds.RescaleIntercept = -4000

        data = padded(tmp_path, 32767, signed=True, modality="MR", change=negative).data[0]
        assert np.unique(data[OUTSIDE.T]).tolist() == [data[~OUTSIDE.T].min()]

    def test_a_range(self, tmp_path: Path) -> None:
        def limit(ds: Dataset) -> None:
            ds.PixelPaddingRangeLimit = 4000
            pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ROWS, COLUMNS).copy()
            pixels[OUTSIDE] = np.linspace(4000, 4095, OUTSIDE.sum()).astype(np.uint16)
            set_pixels(ds, pixels, signed=False)

        data = padded(tmp_path, 4095, change=limit).data[0]
        assert np.unique(data[OUTSIDE.T]).tolist() == [-1000.0]

    def test_in_bits_that_hold_no_value(self, tmp_path: Path) -> None:
        data = padded(tmp_path, 63536, stored_bits=12).data[0]
        assert data[OUTSIDE.T].max() == -1000
        assert data[~OUTSIDE.T].min() >= 900 - 1024

    def test_each_slice_has_its_own(self, tmp_path: Path) -> None:
        images = stack(count=3)
        for k, ds in enumerate(images):
            values = np.full((ROWS, COLUMNS), 1000 + k)
            values[OUTSIDE] = 4000 + k
            set_pixels(ds, values, signed=False)
            if k < 2:
                ds.PixelPaddingValue = 4000 + k
        write(tmp_path, images)
        assert read_one(tmp_path).data[0, 0, 0].tolist() == [-1000, -1000, 4002 - 1024]

    @pytest.mark.parametrize("named", [1059, 1924])
    def test_tissue_of_the_same_value_stays(self, tmp_path: Path, named: int) -> None:
        """35 HU, inside the range of the other values, and 900 HU, the brightest of all."""
        values = np.full((ROWS, COLUMNS), 24)
        values[5:15, 5:19] = 1924
        values[7:13, 7:17] = 1059
        ds = image(0, stored=values)
        ds.PixelPaddingValue = named
        write(tmp_path, [ds])
        volume = read_one(tmp_path)
        np.testing.assert_array_equal(volume.data[0, :, :, 0], values.T - 1024)
        assert volume.source.warnings == ()

    def test_specks_of_tissue_at_the_edge_stay(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(1000, 1100, (ROWS, COLUMNS))
        values[0, 3:6] = 1050
        ds = image(0, stored=values)
        ds.PixelPaddingValue = 1050
        write(tmp_path, [ds])
        np.testing.assert_array_equal(read_one(tmp_path).data[0, :, :, 0], values.T - 1024)

    def test_a_hole_far_from_all_values_is_padding_without_an_edge(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(1000, 1100, (ROWS, COLUMNS))
        values[8:10, 8:10] = 30000
        ds = image(0, stored=values)
        ds.PixelPaddingValue = 30000
        write(tmp_path, [ds])
        assert np.unique(read_one(tmp_path).data[0, 8:10, 8:10, 0]).tolist() == [-1000.0]

    def test_a_header_that_calls_all_padding_is_not_believed(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 2000, (ROWS, COLUMNS))
        ds = image(0, stored=values)
        ds.PixelPaddingValue, ds.PixelPaddingRangeLimit = 0, 4095
        write(tmp_path, [ds])
        np.testing.assert_array_equal(read_one(tmp_path).data[0, :, :, 0], values.T - 1024)

    def test_twins_of_a_radiograph(self, tmp_path: Path) -> None:
        """The same picture as MONOCHROME2 and as MONOCHROME1, each with a collimated border of stored 0."""
        bright = np.random.default_rng(0).integers(400, 3700, (ROWS, COLUMNS))
        found = {}
        for photometric, stored in (("MONOCHROME2", bright.copy()), ("MONOCHROME1", 4095 - bright)):
            stored[:, :3] = stored[:, -3:] = 0
            ds = image(0, modality="DX", stored=stored)
            ds.PhotometricInterpretation, ds.RescaleIntercept, ds.PixelPaddingValue = photometric, 0, 0
            del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
            set_pixels(ds, stored, signed=False, stored_bits=12)
            write(tmp_path / photometric, [ds])
            found[photometric] = read_one(tmp_path / photometric)
        one, two = found["MONOCHROME1"], found["MONOCHROME2"]
        np.testing.assert_array_equal(one.data, two.data)
        assert np.unique(one.data[0, :3]).tolist() == [0.0]
        np.testing.assert_array_equal(one.data[0, 3:-3, :, 0], bright.T[3:-3])
        assert "Pixels that the header calls padding were set to air." in one.source.warnings
