from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_factory import stack, write
from PIL import Image

from anomalyclip_monai import resources
from anomalyclip_monai.data.benchmarks import (
    LAYOUTS,
    Sample,
    Truth,
    find_all,
    find_samples,
    read_mask,
    read_truth,
    squash_mask,
)
from anomalyclip_monai.data.benchmarks.masks import squash_truth
from anomalyclip_monai.data.cases import the_case
from anomalyclip_monai.data.published import METHODS, PUBLISHED, published
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, NoInputError, UsageError

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
SHAPE = (4, 3, 2)
"""(X, Y, Z) of volumes here; photos are 3 columns and 2 rows."""


def _photo(path: Path, rows: object = ((0, 0, 0), (0, 0, 0))) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, dtype=np.uint8)).save(path)
    return path


def _volume(path: Path, data: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8) if data is None else data, affine), path)
    return path


def _plant(root: Path, *paths: str) -> Path:
    """Tiny images, each photo with its own grey values, text for whatever else."""
    for number, path in enumerate(paths):
        if path.endswith((".nii", ".nii.gz")):
            _volume(root / path)
        elif Path(path).suffix.lower() in (".csv", ".txt", ".json", ".mat"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text("nothing")
        else:
            _photo(root / path, [[number, number, number], [0, 1, 2]])
    return root


def _seen(samples: Sequence[Sample]) -> dict[str, tuple[int | None, int]]:
    return {sample.name: (sample.label, len(sample.masks)) for sample in samples}


def _refused(error: type[AnomalyCLIPError], code: str, dataset: str, root: Path, **options: str) -> str:
    with pytest.raises(error) as caught:
        find_samples(dataset, root, **options)
    assert caught.value.code == code, str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BMAD = ["test/good/img/00001_60.png", "test/Ungood/img/00002_60.png", "test/Ungood/img/00002_68.png"]
BMAD_MASKS = ["test/Ungood/label/00002_60.png", "test/Ungood/label/00002_68.png"]
BMAD_SEEN = {
    "test/good/img/00001_60": (0, 0),
    "test/Ungood/img/00002_60": (1, 1),
    "test/Ungood/img/00002_68": (1, 1),
}
BMAD_LABELS = ["train/good/9.png", "test/good/1.png", "test/Ungood/1.png", "valid/Ungood/4.png"]
MVTEC = [
    "nut/train/good/000.png",
    "nut/test/good/000.png",
    "nut/test/cut/000.png",
    "nut/ground_truth/cut/000_mask.png",
    "rod/test/good/000.png",
    "rod/test/cut/000.png",
    "rod/ground_truth/cut/000_mask.png",
    "rod/readme.txt",
]
MVTEC_SEEN = {
    "nut/test/good/000": (0, 0),
    "nut/test/cut/000": (1, 1),
    "rod/test/good/000": (0, 0),
    "rod/test/cut/000": (1, 1),
}

# data set, files, and what must be found: name -> label, number of masks
TREES = {
    "headct": (["good/1.png", "hemorrhage/2.png"], {"good/1": (0, 0), "hemorrhage/2": (1, 0)}),
    "brainmri": (
        ["no/1 no.jpeg", "no/N2.JPG", "yes/Y1.jpg", "yes/Y92.jpg", "yes/Y92.PNG"],
        {"no/1 no": (0, 0), "no/N2": (0, 0), "yes/Y1": (1, 0), "yes/Y92.jpg": (1, 0), "yes/Y92.PNG": (1, 0)},
    ),
    "br35h": (["no/no0.jpg", "yes/y0.jpg", "pred/pred0.jpg"], {"no/no0": (0, 0), "yes/y0": (1, 0)}),
    "covid19": (
        ["NORMAL/images/N-1.png", "NORMAL/masks/N-1.png", "COVID/images/C-1.png", "COVID/masks/C-1.png", "notes.txt"],
        {"NORMAL/images/N-1": (0, 0), "COVID/images/C-1": (1, 0)},
    ),
    "isic": (
        ["ISBI2016_Test_Data/ISIC_01.jpg", "ISBI2016_Test_GroundTruth/ISIC_01_Segmentation.png"],
        {"ISBI2016_Test_Data/ISIC_01": (1, 1)},
    ),
    "colondb": (
        ["images/1.jpg", "images/10.jpg", "masks/1.png", "masks/10.png"],
        {"images/1": (1, 1), "images/10": (1, 1)},
    ),
    "clinicdb": (["Original/1.tif", "Ground Truth/1.tif"], {"Original/1": (1, 1)}),
    "kvasir": (["images/cju0.jpg", "masks/cju0.jpg"], {"images/cju0": (1, 1)}),
    "endo": (["images/a.jpg", "masks/a.jpg"], {"images/a": (1, 1)}),
    "tn3k": (
        ["test-image/0000.jpg", "test-mask/0000.jpg", "trainval-image/0000.jpg", "trainval-mask/0000.jpg"],
        {"test-image/0000": (1, 1)},
    ),
    "mvtec": (MVTEC, MVTEC_SEEN),
    "visa": (MVTEC, MVTEC_SEEN),
    "mpdd": (MVTEC, MVTEC_SEEN),
    "dtd": (MVTEC, MVTEC_SEEN),
    "btad": (
        ["01/train/ok/0.bmp", "01/test/ok/1.bmp", "01/test/ko/1.bmp", "01/ground_truth/ko/1.png"],
        {"01/test/ok/1": (0, 0), "01/test/ko/1": (1, 1)},
    ),
    "sdd": (
        ["kos01/Part0.jpg", "kos01/Part0_label.bmp", "kos02/Part0.jpg", "kos02/Part0_label.bmp"],
        {"kos01/Part0": (None, 1), "kos02/Part0": (None, 1)},
    ),
    "dagm": (
        [
            "Class1/Train/0001.PNG",
            "Class1/Test/0001.PNG",
            "Class1/Test/0002.PNG",
            "Class1/Test/Label/0002_label.PNG",
            "Class1/Test/Label/Labels.txt",
        ],
        {"Class1/Test/0001": (0, 0), "Class1/Test/0002": (1, 1)},
    ),
    "bmad_brain": ([*BMAD, *BMAD_MASKS], BMAD_SEEN),
    "bmad_liver": ([*BMAD, *(mask.replace("label", "anomaly_mask") for mask in BMAD_MASKS)], BMAD_SEEN),
    "bmad_resc": (
        [*BMAD, *BMAD_MASKS, "test/good/label/00001_60.png"],
        {**BMAD_SEEN, "test/good/img/00001_60": (0, 1)},
    ),
    "bmad_oct2017": (BMAD_LABELS, {"test/good/1": (0, 0), "test/Ungood/1": (1, 0)}),
    "bmad_rsna": (BMAD_LABELS, {"test/good/1": (0, 0), "test/Ungood/1": (1, 0)}),
    "bmad_camelyon16": (BMAD_LABELS, {"test/good/1": (0, 0), "test/Ungood/1": (1, 0)}),
    "busi": (
        [
            "benign/benign (1).png",
            "benign/benign (1)_mask.png",
            "benign/benign (1)_mask_1.png",
            "malignant/malignant (1).png",
            "malignant/malignant (1)_mask.png",
            "normal/normal (1).png",
            "normal/normal (1)_mask.png",
        ],
        {"benign/benign (1)": (1, 2), "malignant/malignant (1)": (1, 1), "normal/normal (1)": (0, 1)},
    ),
    "brats": (
        [
            "BraTS2021_00000/BraTS2021_00000_flair.nii.gz",
            "BraTS2021_00000/BraTS2021_00000_t1.nii.gz",
            "BraTS2021_00000/BraTS2021_00000_seg.nii.gz",
            "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz",
            "BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii.gz",
        ],
        {
            "BraTS2021_00000/BraTS2021_00000_flair": (None, 1),
            "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f": (None, 1),
        },
    ),
    "atlas": (
        [
            "Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI_T1w.nii.gz",
            "Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_label-L_desc-T1lesion_mask.nii.gz",
            "Testing/R002/sub-r002s001/ses-1/anat/sub-r002s001_ses-1_space-MNI_T1w.nii.gz",
        ],
        {"Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI_T1w": (None, 1)},
    ),
    "lgg": (["TCGA_CS_1/flair.nii.gz", "TCGA_CS_1/mask.nii.gz"], {"TCGA_CS_1/flair": (None, 1)}),
    "open_ms": (
        ["patient01/FLAIR.nii.gz", "patient01/consensus_gt.nii.gz", "patient02/flair.nii", "patient02/lesion_mask.nii"],
        {"patient01/FLAIR": (None, 1), "patient02/flair": (None, 1)},
    ),
    "normal_volumes": (["a.nii.gz", "sub/b.nii"], {"a": (0, 0), "sub/b": (0, 0)}),
    "folder": (
        ["normal/1.png", "abnormal/1.png", "abnormal/2.nii.gz", "masks/1.png", "masks/2_mask.nii.gz"],
        {"normal/1": (0, 0), "abnormal/1": (1, 1), "abnormal/2": (1, 1)},
    ),
}


@pytest.mark.parametrize("dataset", TREES)
def test_every_tree(tmp_path: Path, dataset: str) -> None:
    files, wanted = TREES[dataset]
    samples = find_samples(dataset, _plant(tmp_path / "set", *files))
    assert _seen(samples) == wanted
    for sample in samples:
        assert sample.image.is_file()
        assert all(mask.is_file() for mask in sample.masks)
        assert sample.volume == (".nii" in sample.image.name)
    if dataset == "normal_volumes":  # lie at any depth
        return
    deeper = tmp_path / "above"
    deeper.mkdir()
    (tmp_path / "set").rename(deeper / "the set")
    assert _seen(find_samples(dataset, tmp_path)) == wanted


def test_every_layout_has_a_test_and_a_line_for_people() -> None:
    assert set(LAYOUTS) == {*TREES, "msd", "csv", "organs"}
    page = (Path(__file__).parents[2] / "docs/datasets.md").read_text()
    own = {"folder", "csv", "organs"}
    assert [name for name in LAYOUTS if f"`{name}`" not in page and name not in own] == []
    assert all(f"evaluate {name} " in page for name in own)
    # every DOI of the table is on the page as well
    dois = {doi.rstrip(".,;)") for layout in LAYOUTS.values() for doi in re.findall(r"10\.\d{4,}/\S+", layout.source)}
    assert {doi for doi in dois if doi not in page} == set()


def test_the_table_is_sound() -> None:
    presets = {*resources.presets(), "auto"}
    for layout in LAYOUTS.values():
        assert layout.preset in presets
        assert layout.tree
        assert layout.source
        re.compile(layout.folder)
        assert bool(layout.sequences) == bool(layout.block)
        for (_, last), (first, _) in zip(layout.sequences, layout.sequences[1:], strict=False):
            assert first == last + 1
    assert LAYOUTS["clinicdb"].sequences[-1][1] == 612
    assert len(LAYOUTS["clinicdb"].sequences) == 29


def test_categories_are_classes_or_the_set(tmp_path: Path) -> None:
    root = _plant(tmp_path / "mvtec", *MVTEC)
    assert [sample.category for sample in find_samples("mvtec", root)] == ["nut", "nut", "rod", "rod"]
    one = find_samples("mvtec", root / "nut")
    assert [(sample.name, sample.category) for sample in one] == [("test/cut/000", "nut"), ("test/good/000", "nut")]
    kvasir = find_samples("kvasir", _plant(tmp_path / "k", "images/a.jpg", "masks/a.jpg"))
    assert kvasir[0].category == "kvasir"


def test_splits(tmp_path: Path) -> None:
    root = _plant(tmp_path, *MVTEC)
    assert [sample.name for sample in find_samples("mvtec", root, split="train")] == ["nut/train/good/000"]
    assert len(find_samples("mvtec", root, split="all")) == 5
    assert "choose from: test, train, all" in _refused(UsageError, "E_SPLIT", "mvtec", root, split="valid")
    plain = _plant(tmp_path / "plain", "no/1.png", "yes/1.png")
    assert len(find_samples("brainmri", plain, split="all")) == 2
    assert "choose from: test, all" in _refused(UsageError, "E_SPLIT", "brainmri", plain, split="train")
    tn3k = _plant(tmp_path / "t", *TREES["tn3k"][0])
    assert find_samples("tn3k", tn3k, split="train")[0].name == "trainval-image/0000"


def test_frames_count_in_natural_order(tmp_path: Path) -> None:
    files = [f"{folder}/{frame}.png" for folder in ("images", "masks") for frame in (2, 10, 1)]
    names = [sample.name for sample in find_samples("kvasir", _plant(tmp_path, *files))]
    assert names == ["images/1", "images/2", "images/10"]


def test_hidden_files_and_what_archives_leave_are_no_images(tmp_path: Path) -> None:
    _plant(tmp_path, "no/1.png", "yes/1.png", "yes/._2.png", "__MACOSX/no/3.png", ".cache/yes/4.png")
    assert len(find_samples("brainmri", tmp_path)) == 2


def test_what_is_no_image_of_the_set_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _plant(tmp_path, "no/a.jpg", "yes/b.jpg")
    find_samples("brainmri", tmp_path)
    assert caplog.messages == []
    for name in ("README.md", "yes/c.heic", "yes/d.txt", "no/e.txt", "no/.DS_Store", "no/Thumbs.db", "broken.jpg"):
        if name == "broken.jpg":
            (tmp_path / name).symlink_to(tmp_path / "gone")
        else:
            (tmp_path / name).write_text("")
    results = tmp_path / "case"
    results.mkdir()
    (results / ".anomalyclip.json").write_text('{"kind": "case", "files": ["heatmap.png"]}')
    _photo(results / "heatmap.png")  # would be an abnormal image of some sets
    assert len(find_samples("brainmri", tmp_path)) == 2
    (line,) = caplog.messages
    assert line.startswith("left out: 2 files .txt, ")
    for part in ("1 file .md", "1 file .heic", "1 broken link", "1 folder with earlier results"):
        assert part in line


def test_a_set_in_itself_is_found_once(tmp_path: Path) -> None:
    _plant(tmp_path, "no/1.png", "yes/2.png", "brain_tumor_dataset/no/1.png", "brain_tumor_dataset/yes/2.png")
    assert [sample.name for sample in find_samples("brainmri", tmp_path)] == ["no/1", "yes/2"]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    _plant(tmp_path / "elsewhere", "1.png")
    root = _plant(tmp_path / "set", "no/2.png")
    (root / "yes").symlink_to(tmp_path / "elsewhere")
    (root / "no" / "again").symlink_to(root)
    assert _seen(find_samples("brainmri", root)) == {"no/2": (0, 0), "yes/1": (1, 0)}
    _plant(root, "no/head.nii.gz")
    assert _seen(find_samples("normal_volumes", root)) == {"no/head": (0, 0)}


# what goes wrong


def test_wrong_folder_shows_the_expected_tree(tmp_path: Path) -> None:
    root = _plant(tmp_path / "x", "yes/1.png", "no/1.png", "notes.txt")
    message = _refused(NoInputError, "E_LAYOUT", "colondb", root)
    assert message == (
        f"E_LAYOUT: not the layout of CVC-ColonDB, it holds no/, notes.txt, yes/ ({root}) - "
        "expected there: images/1.png; masks/1.png"
    )
    (tmp_path / "empty").mkdir()
    assert "it is empty" in _refused(NoInputError, "E_LAYOUT", "mvtec", tmp_path / "empty")
    assert "it is a file" in _refused(NoInputError, "E_LAYOUT", "mvtec", root / "notes.txt")
    _refused(NoInputError, "E_NOT_FOUND", "mvtec", tmp_path / "nowhere")
    assert "choose from: headct, brainmri" in _refused(UsageError, "E_DATASET", "brain", root)


def test_folders_of_images_without_a_normal_one_are_not_taken_for_a_set(tmp_path: Path) -> None:
    root = _plant(tmp_path, "images/1.png", "masks/1.png")
    for dataset in ("headct", "covid19", "brainmri", "mvtec", "folder"):
        _refused(NoInputError, "E_LAYOUT", dataset, root)


def test_two_sets_below_a_folder_are_not_mixed(tmp_path: Path) -> None:
    _plant(tmp_path, "a/no/1.png", "a/yes/1.png", "b/no/1.png", "b/yes/1.png")
    assert "a/, b/" in _refused(NoInputError, "E_LAYOUT", "br35h", tmp_path)


def test_an_image_without_its_mask_is_named(tmp_path: Path) -> None:
    root = _plant(tmp_path, "images/1.png", "images/2.png", "images/3.png", "masks/2.png")
    message = _refused(NoInputError, "E_MASK", "colondb", root)
    assert "2 of 3 images have no mask: images/1.png, images/3.png" in message


def test_a_mask_without_image_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _plant(tmp_path, "images/1.png", "masks/1.png", "masks/7.png")
    with caplog.at_level(logging.WARNING):
        assert len(find_samples("endo", root)) == 1
    assert "1 masks have no image and were left out: masks/7.png" in caplog.text


def test_masks_of_another_split_are_not_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_samples("tn3k", _plant(tmp_path, *TREES["tn3k"][0]))
    find_samples("mvtec", _plant(tmp_path / "m", *MVTEC), split="train")
    assert "masks have no image" not in caplog.text


def test_two_images_for_one_mask_are_refused(tmp_path: Path) -> None:
    root = _plant(tmp_path, "images/1.png", "images/1.jpg", "masks/1.png")
    assert "images/1.jpg, images/1.png" in _refused(NoInputError, "E_DUPLICATE", "kvasir", root)


def test_own_folder_without_masks_has_labels_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = _plant(tmp_path, "normal/a.png", "abnormal/b.png")
    assert _seen(find_samples("folder", root)) == {"normal/a": (0, 0), "abnormal/b": (1, 0)}
    assert "only image scores" in caplog.text
    _plant(tmp_path, "abnormal/c.png", "masks/c.png")
    assert "1 of 3 images have no mask: abnormal/b.png" in _refused(NoInputError, "E_MASK", "folder", root)


# groups


def test_patients_are_groups(tmp_path: Path) -> None:
    def groups(dataset: str, *files: str) -> list[str]:
        return [sample.group for sample in find_samples(dataset, _plant(tmp_path / dataset, *files))]

    slices = [f"TCGA_A/TCGA_A_{k}{end}.tif" for k in (1, 2) for end in ("", "_mask")]
    assert groups("lgg", *slices) == ["TCGA_A", "TCGA_A"]
    assert groups("open_ms", *TREES["open_ms"][0]) == ["patient01", "patient02"]
    assert groups("bmad_brain", *BMAD, *BMAD_MASKS) == ["00002", "00002", "00001"]
    assert groups("sdd", *TREES["sdd"][0]) == ["kos01", "kos02"]
    assert groups("folder", "normal/p1/1.png", "abnormal/p1/2.png", "masks/p1/2.png", "normal/3.png") == [
        "p1",
        "normal/3",
        "p1",
    ]
    assert groups("busi", *TREES["busi"][0])[0] == "benign/benign (1)"


def test_frames_of_a_sequence_are_a_group(tmp_path: Path) -> None:
    frames = (1, 38, 39, 60, 61, 85, 86)
    files = [f"{folder}/{frame}.png" for folder in ("images", "masks") for frame in frames]
    groups = [sample.group for sample in find_samples("colondb", _plant(tmp_path, *files))]
    assert groups == ["frames 1-38"] * 2 + ["frames 39-60"] * 2 + ["frames 61-85"] * 2 + ["frames 86-110"]


def test_groups_csv_says_better(tmp_path: Path) -> None:
    root = _plant(tmp_path, "images/1.png", "images/2.png", "masks/1.png", "masks/2.png")
    (root / "groups.csv").write_text("name,group\nimages/1,video A\n2,video B\n")
    assert [sample.group for sample in find_samples("clinicdb", root)] == ["video A", "video B"]
    (root / "groups.csv").write_text("name,group\nimages/1,video A\n")
    assert "1 images have no group: images/2" in _refused(NoInputError, "E_CSV", "clinicdb", root)


def test_copies_share_a_group(tmp_path: Path) -> None:
    for name in ("no/1.png", "yes/2.png", "yes/3.png"):
        _photo(tmp_path / name, [[1, 2, 3], [4, 5, 6 if name == "yes/2.png" else 9]])
    groups = {sample.name: sample.group for sample in find_samples("brainmri", tmp_path)}
    assert groups == {"no/1": "no/1", "yes/2": "yes/2", "yes/3": "no/1"}


# lists


def test_headct_labels_are_not_padded(tmp_path: Path) -> None:
    _plant(tmp_path, "head_ct/head_ct/000.png", "head_ct/head_ct/004.png", "head_ct/head_ct/112.png")
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,1\n4,1\n112,0\n")
    wanted = {"head_ct/head_ct/000": 1, "head_ct/head_ct/004": 1, "head_ct/head_ct/112": 0}
    for root in (tmp_path, tmp_path / "labels.csv"):
        assert {sample.name: sample.label for sample in find_samples("headct", root)} == wanted
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,1\n5,1\n")
    assert "line 3: there is no image with the number 5" in _refused(NoInputError, "E_CSV", "headct", tmp_path)


def test_visa_split_file(tmp_path: Path) -> None:
    _plant(
        tmp_path,
        "nut/Data/Images/Normal/0.JPG",
        "nut/Data/Images/Normal/1.JPG",
        "nut/Data/Images/Anomaly/0.JPG",
        "nut/Data/Masks/Anomaly/0.png",
        "split_csv/1cls.csv",
    )
    (tmp_path / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "nut,train,normal,nut/Data/Images/Normal/0.JPG,\n"
        "nut,test,normal,nut/Data/Images/Normal/1.JPG,\n"
        "nut,test,anomaly,nut/Data/Images/Anomaly/0.JPG,nut/Data/Masks/Anomaly/0.png\n"
    )
    for root in (tmp_path, tmp_path.parent, tmp_path / "split_csv/1cls.csv"):
        samples = find_samples("visa", root)
        assert _seen(samples) == {"nut/Data/Images/Normal/1": (0, 0), "nut/Data/Images/Anomaly/0": (1, 1)}
        assert {sample.category for sample in samples} == {"nut"}
    assert len(find_samples("visa", tmp_path, split="train")) == 1


def test_own_list(tmp_path: Path) -> None:
    _plant(tmp_path, "a.png", "b.png", "b1.png", "b2.png", "c.nii.gz", "c_mask.nii.gz")
    (tmp_path / "slices").mkdir()
    path = tmp_path / "list.csv"
    path.write_text(
        "\ufeffImage; mask; label; group; category\n"
        "a.png;;normal;p1;head\n"
        "b.png;b1.png|b2.png;1;p1;head\n\n"
        "c.nii.gz;c_mask.nii.gz;;p2;\n"
        "slices;;0;p3;\n",
        encoding="utf-8",
    )
    found = [(s.name, s.label, len(s.masks), s.group, s.category, s.volume) for s in find_samples("csv", path)]
    assert found == [
        ("a", 0, 0, "p1", "head", False),
        ("b", 1, 2, "p1", "head", False),
        ("c", None, 1, "p2", "csv", True),
        ("slices", 0, 0, "p3", "csv", True),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,label\na.png,0\n", "no column image, its first line is 'picture,label'"),
        ("", "no column image, its first line is ''"),
        ("image,label\n", "the list is empty"),
        ("image,label\nz.png,0\n", "line 2: there is no image z.png"),
        ("image,label\n\na.png,\n", "line 3: neither a label nor a mask"),
        ("image,mask\na.png,m.png\n", "line 2: there is no mask m.png"),
        ("image,label\n,1\n", "line 2: no image"),
        ("image,label\na.png,nromal\n", "line 2: the label 'nromal' is neither normal nor abnormal"),
        ("image,label\na.png,1\n./a.png,0\n", "images are listed twice: a"),
    ],
)
def test_wrong_list(tmp_path: Path, text: str, message: str) -> None:
    _plant(tmp_path, "a.png")
    (tmp_path / "list.csv").write_text(text)
    assert message in _refused(NoInputError, "E_CSV", "csv", tmp_path / "list.csv")


def test_images_beside_the_list_have_names_of_their_own(tmp_path: Path) -> None:
    _plant(tmp_path, "x/1.png", "y/1.png", "lists/1.png")
    path = tmp_path / "lists/list.csv"
    path.write_text("image,label\n../x/1.png,0\n../y/1.png,1\n1.png,1\n")
    samples = find_samples("csv", path)
    assert [sample.name for sample in samples] == ["1.png", "1.png-2", "1.png-3"]
    assert len({sample.group for sample in samples}) == 3


def test_list_that_is_no_text_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00image")
    assert "not a text file in UTF-8" in _refused(NoInputError, "E_CSV", "csv", tmp_path / "list.csv")
    assert "expected there: a CSV file" in _refused(NoInputError, "E_LAYOUT", "csv", tmp_path)


def test_split_of_a_list(tmp_path: Path) -> None:
    _plant(tmp_path, "a.png", "b.png")
    (tmp_path / "list.csv").write_text("image,label,split\na.png,0,train\nb.png,1,test\n")
    assert [sample.name for sample in find_samples("csv", tmp_path / "list.csv")] == ["b"]
    assert len(find_samples("csv", tmp_path / "list.csv", split="all")) == 2
    assert "choose from: test, train, all" in _refused(
        UsageError, "E_SPLIT", "csv", tmp_path / "list.csv", split="valid"
    )


# the Medical Segmentation Decathlon


def test_msd_counts_tumours_not_organs(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0], labels[1, 1, 1] = 1, 2
    _volume(tmp_path / "imagesTr/liver_0.nii.gz")
    _volume(tmp_path / "labelsTr/liver_0.nii.gz", labels)
    assert "dataset.json" in _refused(NoInputError, "E_LAYOUT", "msd", tmp_path)
    names = {"0": "background", "1": "liver", "2": "cancer"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    (sample,) = find_samples("msd", tmp_path)
    assert (sample.label, sample.volume, sample.mask_rule) == (None, True, (2,))
    assert np.argwhere(read_mask(sample, SHAPE)).tolist() == [[1, 1, 1]]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "spleen"}}))
    assert "none of the labels is a lesion: background, spleen" in _refused(NoInputError, "E_LAYOUT", "msd", tmp_path)


# masks


def test_mask_lies_as_its_photo(tmp_path: Path) -> None:
    _photo(tmp_path / "images/1.png")
    _photo(tmp_path / "masks/1.png", [[0, 127, 128], [0, 0, 255]])
    (sample,) = find_samples("colondb", tmp_path)
    mask = read_mask(sample, (3, 2, 1))
    assert (mask.dtype, mask.shape) == (np.bool_, (3, 2, 1))
    np.testing.assert_array_equal(mask[:, :, 0].T, [[0, 0, 1], [0, 0, 1]])
    with pytest.raises(CaseError, match=r"E_MASK_GRID: the mask is 3 x 2 x 1, the image 2 x 3 x 1"):
        read_mask(sample, (2, 3, 1))


def test_several_masks_are_one_lesion(tmp_path: Path) -> None:
    _photo(tmp_path / "benign/b.png")
    _photo(tmp_path / "benign/b_mask.png", [[255, 0, 0], [0, 0, 0]])
    _photo(tmp_path / "benign/b_mask_1.png", [[0, 0, 0], [0, 0, 255]])
    _photo(tmp_path / "normal/n.png")
    _photo(tmp_path / "normal/n_mask.png")
    lesions = {
        sample.name: read_mask(sample, (3, 2, 1))[:, :, 0].T.tolist() for sample in find_samples("busi", tmp_path)
    }
    assert lesions == {"benign/b": [[True, False, False], [False, False, True]], "normal/n": [[False] * 3] * 2}
    _photo(tmp_path / "normal/n_mask.png", [[0, 9, 0], [0, 0, 0]])
    with pytest.raises(CaseError, match="E_MASK: a normal image whose mask shows a lesion"):
        read_mask(find_samples("busi", tmp_path)[-1], (3, 2, 1))


@pytest.mark.parametrize(
    ("name", "rows", "wanted"),
    [
        ("m.png", [[0, 1, 2], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]),  # labels
        ("m.png", [[0, 100, 128], [0, 0, 255]], [[0, 1, 1], [0, 0, 1]]),  # as well
        ("m.jpg", [[3, 3, 3], [3, 3, 3]], [[0, 0, 0], [0, 0, 0]]),  # noise of an empty JPEG
    ],
)
def test_masks_of_users_are_labels_or_soft(tmp_path: Path, name: str, rows: object, wanted: object) -> None:
    _photo(tmp_path / "a.png")
    _photo(tmp_path / name, rows)
    (tmp_path / "list.csv").write_text(f"image,mask\na.png,{name}\n")
    (sample,) = find_samples("csv", tmp_path / "list.csv")
    np.testing.assert_array_equal(read_mask(sample, (3, 2, 1))[:, :, 0].T, wanted)


def test_no_mask(tmp_path: Path) -> None:
    normal, abnormal = find_samples("br35h", _plant(tmp_path, "no/1.png", "yes/1.png"))
    assert not read_mask(normal, (3, 2, 1)).any()
    with pytest.raises(CaseError, match="E_MASK: an abnormal image without a mask"):
        read_mask(abnormal, (3, 2, 1))


def test_mask_of_a_volume_is_on_its_grid(tmp_path: Path) -> None:
    lesion = np.zeros(SHAPE, np.float32)
    lesion[3, 1, 0] = 1 / 255
    image = _volume(tmp_path / "TCGA_A/flair.nii.gz")
    _volume(tmp_path / "TCGA_A/mask.nii.gz", lesion)
    (sample,) = find_samples("lgg", tmp_path)
    for affine in (None, AFFINE):
        assert np.argwhere(read_mask(sample, SHAPE, affine)).tolist() == [[3, 1, 0]]
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.6
    _volume(image, affine=shifted)
    with pytest.raises(CaseError, match=r"E_MASK_GRID: the mask lies elsewhere in space, its corners are up to 0\.6"):
        read_mask(sample, SHAPE)
    with pytest.raises(CaseError, match="E_MASK_GRID: the mask is 4 x 3 x 2, the image 4 x 3 x 5"):
        read_mask(sample, (4, 3, 5), AFFINE)


@pytest.mark.filterwarnings("ignore:.*VR (CS|UI|DS|IS):UserWarning")
def test_nifti_mask_of_a_dicom_series(tmp_path: Path) -> None:
    write(tmp_path / "series", stack())
    image = the_case(tmp_path / "series").read()
    shape = image.data.shape[1:]
    lesion = np.zeros(shape, np.uint8)
    lesion[1, 2, 3] = 1
    _volume(tmp_path / "mask.nii.gz", lesion, image.affine)
    (tmp_path / "list.csv").write_text("image,mask\nseries,mask.nii.gz\n")
    (sample,) = find_samples("csv", tmp_path / "list.csv")
    assert (sample.name, sample.volume, sample.label) == ("series", True, None)
    assert np.argwhere(read_mask(sample, shape)).tolist() == [[1, 2, 3]]
    _volume(tmp_path / "mask.nii.gz", lesion, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)
    with pytest.raises(CaseError, match="E_MASK_GRID: the mask lies elsewhere"):
        read_mask(sample, shape)


def test_squashed_mask() -> None:
    # 4 columns, 2 rows: left half lesion, so the left half of the square
    mask = np.zeros((4, 2, 1), np.bool_)
    mask[:2] = True
    squashed = squash_mask(mask, 6)
    assert squashed.shape == (6, 6, 1)
    np.testing.assert_array_equal(squashed[:, :, 0].T, [[1, 1, 1, 0, 0, 0]] * 6)
    # a pixel of 64 x 32 is a quarter of one of 16 x 16 in each row: it vanishes
    mask = np.zeros((64, 32, 1), np.bool_)
    mask[10, 10] = True
    assert not squash_mask(mask, 16).any()


# all sets below a folder, and real ones


def test_all_sets_below_a_folder(tmp_path: Path) -> None:
    _plant(tmp_path, "HeadCT/good/1.png", "HeadCT/bad/1.png", "CVC-ColonDB/images/1.png", "CVC-ColonDB/masks/1.png")
    _plant(tmp_path, *(f"medical/brain_tumor_dataset/{file}" for file in ("no/1.png", "yes/1.png")))
    _plant(tmp_path, "mvtec_anomaly_detection/nut/test/good/0.png", "VisA/unlike/it.png", "mine/normal/1.png")
    _plant(tmp_path, "HeadCT/brainmri/no/1.png", "HeadCT/brainmri/yes/1.png")  # part of HeadCT, whatever its name
    found = find_all(tmp_path)
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        "headct": "HeadCT",
        "brainmri": "medical/brain_tumor_dataset",
        "colondb": "CVC-ColonDB",
        "mvtec": "mvtec_anomaly_detection",
    }
    assert list(found) == ["headct", "brainmri", "colondb", "mvtec"]
    for code, root in (("E_LAYOUT", tmp_path / "mine"), ("E_NOT_FOUND", tmp_path / "nowhere")):
        with pytest.raises(NoInputError) as caught:
            find_all(root)
        assert caught.value.code == code


def test_published_numbers() -> None:
    assert set(PUBLISHED) <= set(LAYOUTS)
    assert published("colondb") == {"pixel_auroc": 0.819, "pixel_pro_paper": 0.713}
    assert published("headct", "CLIP-AC") == {"image_auroc": 0.6, "image_ap": 0.607}
    assert published("visa")["image_auroc"] == 0.82
    assert published("busi") == {}
    for methods in PUBLISHED.values():
        assert set(methods) <= set(METHODS)
        assert all(0 < value < 1 for measures in methods.values() for value in measures.values())


REAL = {
    "headct": ("headct30", {0: 15, 1: 15}, 30),
    "brainmri": ("brainmri", {0: 49, 1: 78}, 123),
    "isic": ("isic9", {1: 9}, 9),
    "colondb": ("colondb_first60", {1: 60}, 2),
    "mvtec": ("mvtec_subset/screw", {0: 8, 1: 49}, 57),
    "busi": ("busi", {0: 10, 1: 20}, 30),
    "organs": ("organs", {0: 10, 1: 264}, 232),
    "lgg": ("lgg6", {None: 6}, 6),
    "open_ms": ("open_ms", {None: 1}, 1),
    "normal_volumes": ("healthy", {0: 2}, 2),
}


@pytest.mark.parametrize("dataset", REAL)
def test_real_sets(test_data: Path, dataset: str) -> None:
    folder, labels, groups = REAL[dataset]
    samples = find_samples(dataset, test_data / "dev" / folder)
    assert Counter(sample.label for sample in samples) == labels
    assert len({sample.group for sample in samples}) == groups


def test_real_masks(test_data: Path) -> None:
    (sample,) = find_samples("open_ms", test_data / "dev/open_ms")
    assert read_mask(sample, (182, 218, 182)).sum() == 1300
    screw = find_samples("mvtec", test_data / "dev/mvtec_subset")
    assert {sample.category for sample in screw} == {"screw"}
    assert all(read_mask(sample, (320, 320, 1)).any() == sample.label for sample in screw)
    assert list(find_all(test_data / "dev")) == list(REAL)


def test_the_rule_of_0_and_255_takes_0_and_1(tmp_path: Path) -> None:
    _photo(tmp_path / "images/1.png")
    _photo(tmp_path / "masks/1.png", [[0, 1, 0], [0, 0, 1]])
    (sample,) = find_samples("colondb", tmp_path)
    np.testing.assert_array_equal(read_mask(sample, (3, 2, 1))[:, :, 0].T, [[0, 1, 0], [0, 0, 1]])


def test_truth_of_several_masks_with_ignored_parts(tmp_path: Path) -> None:
    _photo(tmp_path / "a.png")
    _photo(tmp_path / "m.png", [[0, 1, 255], [0, 255, 0]])
    _photo(tmp_path / "n.png", [[0, 0, 0], [0, 3, 255]])
    (tmp_path / "list.csv").write_text("image,mask\na.png,m.png|n.png\n")
    (sample,) = find_samples("csv", tmp_path / "list.csv")
    truth = read_truth(sample, (3, 2, 1))
    np.testing.assert_array_equal(truth.lesion[:, :, 0].T, [[0, 1, 0], [0, 1, 0]])
    assert truth.ignored is not None
    np.testing.assert_array_equal(truth.ignored[:, :, 0].T, [[0, 0, 1], [0, 0, 1]])  # lesion in one is lesion
    np.testing.assert_array_equal(truth.counted, ~truth.ignored)
    assert truth.notes == tuple(f"mask values taken as lesion: {value}; left out: 255" for value in (1, 3))
    assert Truth(truth.lesion).counted is None


def test_squashed_truth_knows_three_kinds_of_pixels() -> None:
    lesion, ignored = np.zeros((2, 9, 4, 1), np.bool_)
    lesion[:3], ignored[3:6] = True, True
    squashed = squash_truth(Truth(lesion, ignored), 18)
    assert squashed.ignored is not None
    rows = [
        [2 * int(a) + int(b) for a, b in zip(*pair, strict=True)]
        for pair in [(squashed.lesion[:, 0, 0], squashed.ignored[:, 0, 0])]
    ]
    assert rows == [[2] * 6 + [1] * 6 + [0] * 6]
    assert squash_truth(Truth(lesion), 18).ignored is None


def test_an_empty_mask_of_an_abnormal_image(tmp_path: Path) -> None:
    _photo(tmp_path / "abnormal/a.png")
    _photo(tmp_path / "masks/a.png", [[0, 0, 0], [0, 0, 0]])
    (sample,) = find_samples("folder", tmp_path)
    with pytest.raises(CaseError, match=r"E_MASK: an abnormal image whose mask is empty \(.*masks/a\.png\)"):
        read_mask(sample, (3, 2, 1))
    assert not read_truth(sample, (3, 2, 1)).lesion.any()


def test_values_that_mean_nothing_are_named(tmp_path: Path) -> None:
    _volume(tmp_path / "TCGA_A/flair.nii.gz")
    _volume(tmp_path / "TCGA_A/mask.nii.gz", np.linspace(0, 4, 24, dtype=np.float32).reshape(SHAPE))
    (sample,) = find_samples("lgg", tmp_path)
    with pytest.raises(CaseError, match=r"E_MASK: the mask's values are fractions up to 4.*mask\.nii\.gz"):
        read_mask(sample, SHAPE)
