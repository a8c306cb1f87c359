"""What prompts learn from: photos upright, slices of volumes balanced, hashes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from photo_set import make_photo_set
from PIL import Image

from anomalyclip_monai.engines.prompts import training_data
from anomalyclip_monai.engines.prompts.datasets import ImageDataset, augmentation
from anomalyclip_monai.engines.prompts.items import with_preset
from anomalyclip_monai.exceptions import CaseError, UsageError
from anomalyclip_monai.transforms import ApplyPresetd, LoadImageCased

pytestmark = pytest.mark.usefixtures("one_thread")

PREPROCESSING = Compose([LoadImageCased(), ApplyPresetd()])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photo_set(tmp_path / "photos", 6)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """One healthy volume and one with a lesion in 3 of its 12 slices, (30, 26, 12), axis 2 is stacked; L, A, S."""
    random = np.random.default_rng(1)
    root = tmp_path / "volumes"
    for kind in ("normal", "abnormal"):
        data = random.normal(300, 10, (30, 26, 12)).astype(np.float32)
        data[..., 0] = 0  # an empty slice
        mask = np.zeros(data.shape, np.uint8)
        if kind == "abnormal":
            mask[4:9, 20:23, 5:8] = 1
            data[mask > 0] = 700
        for folder, content in ((kind, data), ("masks", mask)):
            if folder == "masks" and kind == "normal":
                continue
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(content, np.diag([-1, 1, 5, 1.0])), root / folder / f"{kind}.nii.gz")
    return root


def test_photos_are_read_upright_and_scaled(photos, tmp_path):
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "slices")
    assert len(data) == 6
    assert data.sets == {"folder": 6}
    for item in data:
        image, mask, label = item.read()
        assert image.shape == (1, 40, 56)
        assert mask.shape == (40, 56)
        assert label == int("abnormal" in item.name)
        stored = np.asarray(Image.open(photos / f"{item.sample.name}.png"), np.float32)
        np.testing.assert_allclose(image[0].numpy(), stored / 255, atol=1e-6)
        if label:
            drawn = np.asarray(Image.open(photos / "masks" / f"{Path(item.sample.name).name}.png"))
            np.testing.assert_array_equal(mask.numpy(), drawn > 0)
        else:
            assert not mask.any()


def test_slices_are_balanced_upright_and_the_same_for_the_same_seed(volumes, tmp_path):
    sets = [("folder", volumes)]
    data = training_data(sets, PREPROCESSING, tmp_path / "a", slices=8)
    read = [item.read() for item in data]
    assert sum(item.label for item in read) == 3  # all that there are, fewer than half of 8
    assert len(read) == 6  # and no more normal ones
    for image, mask, label in read:
        assert image.shape == (1, 26, 30)  # rows run along Y, columns along X
        assert image.max() > 0.2
        assert bool(mask.any()) == bool(label)
        if label:
            rows, columns = np.nonzero(mask.numpy())
            # X is stored to the left, which is the picture's right, so columns stay; Y is stored to anterior, the top
            assert (columns.min(), columns.max()) == (4, 8)
            assert (rows.min(), rows.max()) == (25 - 22, 25 - 20)
            assert image[0][mask].min() > 2 * image[0][~mask].mean()
    again = training_data(sets, PREPROCESSING, tmp_path / "b", slices=8)
    other = training_data(sets, PREPROCESSING, tmp_path / "c", slices=8, seed=3)
    assert [item.name for item in again] == [item.name for item in data] != [item.name for item in other]
    assert again.sha256 == data.sha256 != other.sha256


def test_slices_are_taken_out_once(volumes, tmp_path):
    sets = [("folder", volumes)]
    data = training_data(sets, PREPROCESSING, tmp_path / "a", slices=8)
    before = {item.path: item.path.stat().st_mtime_ns for item in data}
    training_data(sets, PREPROCESSING, tmp_path / "a", slices=8)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    fewer = training_data(sets, PREPROCESSING, tmp_path / "a", slices=2)
    assert sum("lesion" in item.name for item in fewer) == 1


def test_several_sets_at_once(photos, volumes, tmp_path):
    data = training_data([("folder", photos), ("folder", volumes)], PREPROCESSING, tmp_path / "a", slices=4)
    assert data.sets == {"folder": 6 + 4}


def test_hash_follows_content_and_names_and_not_the_place(photos, tmp_path):
    def digest(root: Path) -> str:
        return training_data([("folder", root)], PREPROCESSING, tmp_path / "s").sha256

    first = digest(photos)
    moved = photos.rename(tmp_path / "elsewhere")
    assert digest(moved) == first
    Image.new("L", (56, 40), 7).save(moved / "normal" / "00.png")
    assert digest(moved) != first


def test_a_missing_mask_is_refused_unless_none_is_needed(photos, tmp_path):
    for mask in (photos / "masks").iterdir():
        mask.unlink()
    with pytest.raises(UsageError, match=r"E_MASK: 3 abnormal images of folder have no mask, such as abnormal/01"):
        training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "s", terms="global")
    assert [item.read().label for item in data].count(1) == 3


def test_the_global_loss_alone_needs_both_kinds(photos, tmp_path):
    for photo in (photos / "normal").iterdir():
        photo.unlink()
    with pytest.raises(UsageError, match="E_LABELS: all images are abnormal"):
        training_data([("folder", photos)], PREPROCESSING, tmp_path / "s", terms="global")


def test_one_kind_of_images_is_warned_of(photos, tmp_path, caplog):
    for photo in (photos / "normal").iterdir():
        photo.unlink()
    training_data([("folder", photos)], PREPROCESSING, tmp_path / "s", terms="local")
    assert not caplog.records
    training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    assert "all images are abnormal" in caplog.text


def test_a_volume_with_a_label_alone_is_refused(volumes, tmp_path):
    (volumes / "masks" / "abnormal.nii.gz").unlink()
    with pytest.raises(UsageError, match="E_MASK: 1 abnormal"):
        training_data([("folder", volumes)], PREPROCESSING, tmp_path / "s", terms="global")


def test_the_preset_of_a_layout_scales_a_copy():
    changed = with_preset(PREPROCESSING, "ct_head")
    presets = [compose.transforms[1].transform.preset for compose in (PREPROCESSING, changed)]
    assert presets == ["auto", "ct_head"]
    assert with_preset(PREPROCESSING, "photo").transforms[1].transform.preset == "auto"


def test_a_damaged_photo_is_named(photos, tmp_path):
    (photos / "normal" / "00.png").write_bytes(b"no photo")
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    with pytest.raises(CaseError, match=r"E_PIXELS.*00\.png"):
        [item.read() for item in data]


def test_samples_are_what_the_network_sees(photos, tmp_path, tiny_network):
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    index = next(number for number, item in enumerate(data) if item.sample.label)
    sample, item = ImageDataset(data, tiny_network)[index], data[index].read()
    assert torch.equal(sample["image"], tiny_network.preprocess(item.image[None])[0])
    assert sample["label"] == 1
    # 40 x 56 pixels squashed to 84 x 84: the block of 14 rows x 12 columns keeps its share of the picture
    assert sample["mask"].shape == (1, 84, 84)
    assert float(sample["mask"].mean()) == pytest.approx(14 * 12 / (40 * 56), rel=0.1)
    rows = torch.nonzero(item.mask.any(dim=1)).flatten().float().mean() / 40
    assert float(torch.nonzero(sample["mask"][0].any(dim=1)).float().mean()) / 84 == pytest.approx(
        float(rows), abs=0.02
    )


def test_augmentation_is_mild_and_follows_seed_epoch_and_sample(photos, tmp_path, tiny_network):
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    dataset = ImageDataset(data, tiny_network, augment=True, seed=3)
    plain = ImageDataset(data, tiny_network)
    first = [dataset[index] for index in range(len(data))]
    again = [dataset[index] for index in reversed(range(len(data)))][::-1]
    assert all(
        torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])
        for a, b in zip(first, again, strict=True)
    )
    dataset.set_epoch(2)
    assert any(not torch.equal(a["image"], dataset[index]["image"]) for index, a in enumerate(first))
    for sample, before in zip(first, (plain[index] for index in range(len(data))), strict=True):
        assert sample["label"] == before["label"] == int(sample["mask"].any())
        assert set(sample["mask"].unique().tolist()) <= {0.0, 1.0}
    # image and mask move together: the bright block stays under its mask
    changed = augmentation().set_random_state(1)
    for item in (item.read() for item in data if item.sample.label):
        moved = changed({"image": item.image, "mask": item.mask[None].float()})
        inside = moved["mask"] > 0.5
        assert moved["image"][inside].mean() > moved["image"][~inside].mean() + 0.2


def test_an_empty_mask_and_a_stack_of_pages_are_named(photos, tmp_path):
    masks = sorted((photos / "masks").iterdir())
    Image.new("L", (56, 40)).save(masks[0])
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    with pytest.raises(CaseError, match=rf"E_MASK: an abnormal image whose mask is empty.*{masks[0].name}"):
        [item.read() for item in data]
    page = Image.new("L", (56, 40), 9)
    page.save(photos / "normal" / "stack.tif", save_all=True, append_images=[page])
    data = training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")
    stack = next(item for item in data if item.name.endswith("stack"))
    with pytest.raises(CaseError, match=r"E_PIXELS: a photo of 2 pages.*stack\.tif"):
        stack.read()


def test_how_a_mask_was_understood_is_said_once(photos, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("anomalyclip_monai.engines.prompts.items._SAID", set())
    for path in (photos / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 2).save(path)
    for _ in range(2):
        [item.read() for item in training_data([("folder", photos)], PREPROCESSING, tmp_path / "s")]
    (record,) = caplog.records
    assert "mask values taken as lesion: 2" in record.getMessage()
