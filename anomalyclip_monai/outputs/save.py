"""The writing step of a bundle."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.transforms import SaveImaged
from monai.transforms.transform import MapTransform

from anomalyclip_monai.options import OutputOptions
from anomalyclip_monai.outputs.result import Result
from anomalyclip_monai.types import PathLike, Record
from anomalyclip_monai.weights.bundle import fingerprint


class SaveImageResultd(SaveImaged):
    """Write the files of a case, see :meth:`Result.save`.

    A ``SaveImaged`` by class and name, because MONAI Label and MONAI Deploy leave such transforms out by these.

    Args:
        keys: key of the mask.
        output_dir: results go to ``output_dir/<case>/``.
        bundle_root: whose weights are named in ``scores.json``.
        device: named in ``scores.json``.
        dicom: whether DICOM input gets DICOM results as well.
        prompts: learned prompts in the place of the bundle's, see
            :func:`~anomalyclip_monai.weights.bundle.prompts_file`.
        fast: whether the first network of an ensemble ran alone.
        report: whether ``report.html`` is written as well.
        prompts_out: whether ``prompts.json`` is written as well.
        seg_type: of ``mask.dcm``, ``binary`` or ``labelmap``.
    """

    def __init__(
        self,
        keys: str,
        output_dir: PathLike,
        bundle_root: PathLike,
        device: Any = "",
        dicom: bool = True,
        prompts: PathLike | None = None,
        fast: bool = False,
        report: bool = False,
        prompts_out: bool = False,
        seg_type: str = "binary",
    ) -> None:
        # MONAI's own constructor sets up its writers, none of which is used here.
        MapTransform.__init__(self, keys)
        self.output_dir = Path(output_dir)
        self.bundle_root = Path(bundle_root)
        self.device = device
        self.dicom = dicom
        self.prompts = prompts
        self.fast = fast
        self.files = OutputOptions(report=report, prompts_out=prompts_out, seg_type=seg_type)

    def __call__(self, data: Mapping[Hashable, Any]) -> Record:
        """Write one record and return it.

        Raises:
            OutputError: a file cannot be written (``E_WRITE``).
        """
        record: Record = {str(key): value for key, value in data.items()}
        model = fingerprint(self.bundle_root, self.prompts, fast=self.fast)
        result = Result.from_record(record, model=model, device=str(self.device))
        result.save(self.output_dir, dicom=self.dicom, **self.files.given())
        return record
