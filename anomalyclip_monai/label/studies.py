"""The studies as MONAI Label's datastores: a folder with all that this package reads, or a DICOMweb server.

A viewer gets the image of a DICOM series as NIfTI, written with its own geometry; the network gets the DICOM files.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from dicomweb_client import DICOMwebClient
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series
from pydicom import Dataset

from anomalyclip_monai.data import Case
from anomalyclip_monai.data.cases import find_cases, the_case
from anomalyclip_monai.data.content import stamps_of
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, NoInputError, OutputError, UsageError
from anomalyclip_monai.files import cannot_write
from anomalyclip_monai.label.worklist import Scored
from anomalyclip_monai.outputs.nifti import write_nifti
from anomalyclip_monai.text import printable

logger = logging.getLogger(__name__)

LABEL_EXTENSIONS = ("*.nii.gz", "*.nii", "*.nrrd")

LISTED_FOR = 10.0
"""Seconds for which the answer of a DICOMweb server about its series is believed."""

Known = Callable[[str], Scored | None]


class Studies(Protocol):
    """What both have beside MONAI Label's own methods."""

    known: Known

    def case_of(self, image: str) -> Case:
        """What the network gets."""

    def borrowed(self, image: str) -> contextlib.AbstractContextManager[Case]:
        """The same for the time of a block."""

    def stamp_of(self, image: str) -> str:
        """What changes when the image does."""

    def list_images(self) -> list[str]:
        """Ids of all images."""

    def get_unlabeled_images(self) -> list[str]:
        """Ids of those without a final label."""


class _Ours(LocalDatastore):
    """What the two have in common: scores in the information on an image, and names that stay in their folder."""

    known: Known

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        scored = self.known(image_id)
        return {**super().get_image_info(image_id), **(scored.info() if scored else {})}

    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = super().json()
        for image, entry in content["objects"].items():
            if scored := self.known(image):
                entry["image"]["info"] |= scored.info()
        return content

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", label_tag):
            raise UsageError("E_OPTION", f"the tag {label_tag[:80]!r}", None, "use letters and digits")
        return str(super().save_label(image_id, label_filename, label_tag, label_info))

    def remove_image(self, image_id: str) -> None:
        raise UsageError("E_OPTION", "images are not removed through this server", image_id, "remove the file yourself")


class FolderStudies(_Ours):
    """A folder: every case that the command finds in it, at any depth, under its name with ``__`` for separators.

    Args:
        studies: the folder.
        work: where labels and the list of images are kept.
        known: what is known of an image.
    """

    def __init__(self, studies: Path, work: Path, known: Known) -> None:
        self.known = known
        self._studies = studies
        self._cases: dict[str, Case] = {}
        self._converted = Path(tempfile.mkdtemp(prefix="images-"))
        self._looking = threading.Lock()
        try:
            super().__init__(str(work), images_dir=str(studies), extensions=LABEL_EXTENSIONS, auto_reload=False)
        except OSError as error:
            raise OutputError("E_WRITE", cannot_write(work, error).what, work, "choose a folder with --work") from error

    def case_of(self, image: str) -> Case:
        """The case of an id.

        Raises:
            NoInputError: there is no such image (``E_NOT_FOUND``).
        """
        if image not in self._cases:
            raise _no_image(image)
        return self._cases[image]

    def stamp_of(self, image: str) -> str:
        """What changes when one of its files does."""
        return hashlib.sha256(repr(stamps_of(self.case_of(image).files())).encode()).hexdigest()[:16]

    @contextlib.contextmanager
    def borrowed(self, image: str) -> Iterator[Case]:
        """:meth:`case_of`."""
        yield self.case_of(image)

    def get_image_uri(self, image_id: str) -> str:
        """The file that a viewer gets; empty for an unknown id."""
        case = self._cases.get(image_id)
        if case is None:
            return ""
        if case.series is None and case.path.name.lower().endswith((".nii.gz", ".nii", ".nrrd", ".png", ".jpg")):
            return str(case.path)
        target = self._converted / f"{image_id}.nii.gz"
        if not target.exists():
            write_image(case, target)
        return str(target)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, and its file."""
        return {**super().get_image_info(image_id), "path": self.get_image_uri(image_id)}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy an image into the folder: -> its id."""
        name = f"{image_id}{''.join(Path(image_filename).suffixes[-2:])}"
        if Path(name).name != name or name.startswith("."):
            raise UsageError("E_OPTION", f"the name {image_id[:80]!r}", None, "use letters and digits")
        if (target := self._studies / name).exists():
            raise UsageError("E_OPTION", f"an image {image_id!r} is there already", None, "choose another name")
        try:
            shutil.copy(image_filename, target)
        except OSError as error:
            raise cannot_write(target, error) from error
        self.refresh()
        return next((image for image, case in self._cases.items() if case.path == target), image_id)

    def _reconcile_datastore(self) -> None:
        with self._looking:
            self._init_from_datastore_file()
            written = self._datastore.model_dump()
            self._datastore.images_dir = str(self._studies)
            self._cases = self._found()
            before = dict(self._datastore.objects)
            listed = {image: before.get(image) or self._entry(image) for image in self._cases}
            self._datastore.objects.clear()
            self._datastore.objects.update(listed)
            labels = Path(self._datastore.label_path(None))
            for tag in sorted(folder.name for folder in labels.iterdir() if folder.is_dir()):
                self._add_non_existing_labels(tag)
            if self._datastore.model_dump() != written or not os.path.exists(self._datastore_config_path):
                self._update_datastore_file()

    def _found(self) -> dict[str, Case]:
        labels = Path(self._datastore.label_path(None))
        try:
            cases = find_cases([self._studies])
        except NoInputError:  # an empty folder may get images later on
            return {}
        found: dict[str, Case] = {}
        for case in cases:
            if not case.path.is_relative_to(labels):
                name = number = case.name.replace("/", "__")
                count = 2
                while number in found:
                    number, count = f"{name}-{count}", count + 1
                found[number] = case
        return found

    def _entry(self, image: str) -> ImageLabelModel:
        path = self._cases[image].path
        extension = path.name.removeprefix(image) if path.name.startswith(image) else ""
        return ImageLabelModel(image=DataModel(ext=extension, info={"ts": int(time.time()), "name": path.name}))


class DicomWebStudies(_Ours, DICOMWebDatastore):
    """A DICOMweb server; the series that were asked for lie in the private folder.

    Args:
        client: of the server.
        modalities: codes of the series that are listed.
        cache: where series are put.
        known: what is known of an image.
    """

    def __init__(self, client: DICOMwebClient, modalities: Sequence[str], cache: Path, known: Known) -> None:
        self.known = known
        self._client, self._modalities = client, tuple(modalities)
        self._fetch_by_frame, self._convert_to_nifti = False, True
        self._listed: tuple[float, list[str]] = (-LISTED_FOR, [])
        self._labelled: dict[str, str] = {}
        self._opened: set[str] = set()
        self._fetching = threading.Lock()
        LocalDatastore.__init__(self, str(cache), extensions=LABEL_EXTENSIONS, auto_reload=False)

    def list_images(self) -> list[str]:
        """UIDs of the series with one of the modalities."""
        if time.monotonic() - self._listed[0] > LISTED_FOR:
            found = [entry for modality in self._modalities for entry in self._series({"Modality": modality})]
            uids = [str(entry.SeriesInstanceUID) for entry in found]
            self._listed = time.monotonic(), list(dict.fromkeys(uids))
        return self._listed[1]

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Those with a label that was saved here, or a SEG on the server that is not a result of this package."""
        for entry in self._series({"Modality": "SEG"}):
            uid = str(entry.SeriesInstanceUID)
            if uid not in self._labelled:
                with _answering(self.name()):
                    header = self._client.retrieve_series_metadata(str(entry.StudyInstanceUID), uid)[0]
                self._labelled[uid] = _segmented_by_others(Dataset.from_json(header))
        done = {*self._labelled.values(), *LocalDatastore.get_labeled_images(self)}
        return [image for image in self.list_images() if image in done]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """The others, in the order of the server."""
        done = set(self.get_labeled_images())
        return [image for image in self.list_images() if image not in done]

    def case_of(self, image: str) -> Case:
        """The DICOM series of an id, which stays in the private folder from now on.

        Raises:
            NoInputError: there is no such image (``E_NOT_FOUND``).
            CaseError: the server does not give it (``E_DICOMWEB``).
        """
        self._opened.add(image)
        return self._fetched(image)

    @contextlib.contextmanager
    def borrowed(self, image: str) -> Iterator[Case]:
        """The same, removed at the end of the block unless it was asked for otherwise as well."""
        try:
            yield self._fetched(image)
        finally:
            with self._fetching:
                if image not in self._opened:
                    shutil.rmtree(self._folder(image), ignore_errors=True)

    def _fetched(self, image: str) -> Case:
        """The series, fetched whole or not at all."""
        if image not in self.list_images():
            raise _no_image(image)
        folder = self._folder(image)
        with self._fetching:
            if not folder.is_dir():
                part = Path(tempfile.mkdtemp(prefix="fetched-"))
                with _answering(self.name()):
                    dicom_web_download_series(None, image, str(part), self._client, self._fetch_by_frame)
                part.rename(folder)  # both are in the private folder
        return the_case(folder)

    def stamp_of(self, image: str) -> str:
        """A series keeps its UID for good."""
        return ""

    def get_image_uri(self, image_id: str) -> str:
        """The file that a viewer gets."""
        target = Path(f"{self._folder(image_id)}.nii.gz")  # beside the series, where MONAI Label looks for it
        case = self.case_of(image_id)
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix="image-") as folder:
                write_image(case, Path(folder, target.name))
                LocalDatastore.add_image(self, image_id, str(Path(folder, target.name)), self._dicom_info(image_id))
        return str(target)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused."""
        raise UsageError("E_OPTION", "images are stored in the DICOMweb server", None, "send them there")

    def _folder(self, image: str) -> Path:
        return Path(self._datastore.image_path(), image)

    def _series(self, wanted: dict[str, str]) -> list[Dataset]:
        with _answering(self.name()):
            return [Dataset.from_json(entry) for entry in self._client.search_for_series(search_filters=wanted)]


@contextlib.contextmanager
def _answering(address: str) -> Iterator[None]:
    """Say in one line that a DICOMweb server does not answer, whatever its client raises."""
    try:
        yield
    except AnomalyCLIPError:
        raise
    except Exception as error:
        what = f"the DICOMweb server does not give what was asked for: {type(error).__name__}"
        raise CaseError("E_DICOMWEB", what, address, "check its address, and that it runs") from error


def _segmented_by_others(seg: Dataset) -> str:
    """UID of the series that a SEG belongs to; empty for what this package wrote, which no reader has seen."""
    if "anomalyclip" in str(seg.get("Manufacturer", "")).lower():
        return ""
    referenced = seg.get("ReferencedSeriesSequence") or [Dataset()]
    return str(referenced[0].get("SeriesInstanceUID", ""))


def _no_image(image: str) -> NoInputError:
    shown = printable(image[:80])
    return NoInputError("E_NOT_FOUND", f"the studies have no image {shown!r}", None, "choose one of the work list")


def write_image(case: Case, target: Path) -> None:
    """Write a case as NIfTI for viewers, on its own grid; whole numbers as such.

    Raises:
        AnomalyCLIPError: it cannot be read, or has no grid (``E_GEOMETRY``).
    """
    volume = case.read()
    if not volume.source.regular:
        what = "the slices of this series lie on no grid"
        raise CaseError("E_GEOMETRY", what, None, "view the DICOM files")
    data = volume.data[0] if len(volume.data) == 1 else np.moveaxis(volume.data, 0, -1)
    whole = bool((data == np.rint(data)).all()) and float(np.abs(data).max(initial=0)) < 2**15
    write_nifti(target, data.astype(np.int16) if whole else data, volume.affine)
