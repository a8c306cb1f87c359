import numpy as np
import pytest

from anomalyclip_monai.exceptions import NoInputError
from recipes.tiny.sources import Subject, fingerprint, read_subjects


def test_a_photo_is_cut_as_it_is(tmp_path, write_photo):
    frame = np.full((30, 40, 3), 100)
    frame[:10, :8] = [200, 50, 25]
    mask = np.zeros((30, 40, 3))
    mask[20:, 30:] = 255
    write_photo("kvasir_256/images/a.png", frame).rename(tmp_path / "kvasir_256/images/a.jpg")
    write_photo("kvasir_256/masks/a.png", mask)
    (subject,) = read_subjects(tmp_path)
    picture = subject.cut(2, 0)
    np.testing.assert_array_equal(picture.image, frame)
    np.testing.assert_array_equal(picture.lesion, mask[..., 0] > 0)
    assert subject.domain == "colonoscopy"


def test_ripples_of_a_jpeg_mask_are_no_lesion(tmp_path, write_photo):
    write_photo("kvasir_256/images/a.jpg", np.full((32, 32, 3), 100))
    mask = np.full((32, 32), 20)
    mask[8:24, 8:24] = 250
    write_photo("kvasir_256/masks/a.jpg", mask)
    (subject,) = read_subjects(tmp_path)
    assert subject.lesion.sum() == 16 * 16


def test_masks_of_one_image_are_united_and_squashed_to_it(tmp_path, write_photo):
    write_photo("busi/benign/benign (4).png", np.full((20, 40), 90))
    first, second = np.zeros((20, 40)), np.zeros((40, 40))
    first[:, :4] = 255
    second[:, 36:] = 255
    write_photo("busi/benign/benign (4)_mask.png", first)
    write_photo("busi/benign/benign (4)_mask_1.png", second)
    write_photo("busi/benign/benign (41).png", np.full((20, 40), 90))
    write_photo("busi/benign/benign (41)_mask.png", np.zeros((20, 40)))
    lesions = {subject.name: subject.cut(2, 0).lesion for subject in read_subjects(tmp_path)}
    assert lesions["benign (41)"].sum() == 0
    assert lesions["benign (4)"][:, :4].all()
    assert lesions["benign (4)"][:, 36:].all()
    assert lesions["benign (4)"].sum() == 2 * 4 * 20


def test_every_colour_of_a_haemorrhage_mask_counts(tmp_path, write_photo):
    write_photo("mbh_ct_hemorrhage/images/120018.png", np.full((24, 24, 3), 90))
    mask = np.zeros((24, 24, 3))
    mask[2:4, :5], mask[10:12, :5], mask[20, 20] = [255, 0, 0], [0, 0, 255], [0, 1, 255]
    write_photo("mbh_ct_hemorrhage/masks/120018.png", mask)
    (subject,) = read_subjects(tmp_path)
    assert subject.lesion.sum() == 21
    assert subject.patient == "mbh120"


def test_slices_with_the_infarct_are_not_read_as_normal(tmp_path, write_photo):
    for index in range(28):
        write_photo(f"head_ct_slices/dcmqa_ge_{index:02d}.png", np.full((16, 16), 90))
    names = [subject.name for subject in read_subjects(tmp_path)]
    assert names == [f"dcmqa_ge_{index:02d}" for index in [*range(11), *range(20, 28)]]


def test_tissue_maps_are_moved_onto_the_t1(tmp_path, write_volume):
    t1 = np.zeros((20, 22, 24), np.int16)
    t1[4:16, 4:18, 6:18] = 100
    wm = np.zeros((24, 26, 20), np.uint8)
    wm[10 + 2, 11 + 2, 12 - 6] = 255  # the T1's voxel (10, 11, 12) on the grid of the maps
    write_volume("normal_volumes/mni152_2009_t1.nii.gz", t1)
    write_volume("normal_volumes/mni152_wm.nii.gz", wm)
    write_volume("normal_volumes/mni152_gm.nii.gz", np.zeros_like(wm))
    (subject,) = read_subjects(tmp_path)
    np.testing.assert_array_equal(np.argwhere(subject.classes[..., 1]), [[10, 11, 12]])
    assert subject.classes[..., 0].sum() == 0


def test_ms_lesions_are_lesions_on_flair_and_unknown_on_t1(tmp_path, write_volume):
    head = np.zeros((16, 18, 14), np.float32)
    head[3:13, 3:15, 3:11] = 50
    mask = np.zeros(head.shape, np.uint8)
    mask[6:8, 6:8, 6:8] = 1
    for kind in ("flair", "t1", "t2", "t1post"):
        write_volume(f"open_ms/patient19/{kind}.nii.gz", head)
    write_volume("open_ms/patient19/lesion_mask.nii.gz", mask)
    found = {subject.name: subject for subject in read_subjects(tmp_path)}
    for kind, value in {"flair": 1, "t2": 1, "t1": 2, "t1post": 2}.items():
        subject = found[f"patient19_{kind}"]
        assert set(np.unique(subject.lesion)) == {0, value}
        assert subject.diseased == (value == 1)
        assert subject.axes == (0, 1, 2)


def test_thick_slices_are_cut_only_where_their_pixels_are_about_square(tmp_path, write_volume):
    head = np.zeros((12, 30, 32), np.float32)
    head[2:10, 5:25, 5:27] = 50
    write_volume("normal_heads_dcmqa/t1_sag_4p8mm.nii.gz", head, (4.8, 1, 1))
    (subject,) = read_subjects(tmp_path)
    assert subject.axes == (0,)


def test_volumes_are_cut_upright():
    x, y, z = np.mgrid[:4, :5, :6].astype(np.uint8)
    volume = np.stack([x, y, z], axis=-1)  # every voxel names its place to the right, to the front, to the top
    nothing = np.zeros(volume.shape[:3], np.uint8)
    subject = Subject("a", "a", "mr_brain", volume, nothing, nothing + 1, axes=(0, 1, 2))
    axial, coronal, sagittal = (subject.cut(axis, 2).image for axis in (2, 1, 0))
    assert axial.shape == (5, 4, 3)
    np.testing.assert_array_equal(axial[0, 0], [3, 4, 2])  # anterior on top, the patient's right on the left
    assert coronal.shape == (6, 4, 3)
    np.testing.assert_array_equal(coronal[0, 0], [3, 2, 5])  # superior on top
    assert sagittal.shape == (6, 5, 3)
    np.testing.assert_array_equal(sagittal[0, 0], [2, 4, 5])  # superior on top, anterior on the left


def test_an_organ_that_is_left_out_is_not_read(tmp_path, write_photo):
    write_photo("kvasir_256/images/a.jpg", np.full((32, 32, 3), 100))
    write_photo("kvasir_256/masks/a.jpg", np.zeros((32, 32)))
    write_photo("busi/normal/normal (1).png", np.full((32, 32), 100))
    assert {subject.domain for subject in read_subjects(tmp_path)} == {"colonoscopy", "ultrasound"}
    assert {subject.domain for subject in read_subjects(tmp_path, leave_out="colonoscopy")} == {"ultrasound"}
    with pytest.raises(NoInputError, match="E_NO_INPUT"):
        read_subjects(tmp_path / "busi", leave_out="ultrasound")


def test_near_duplicates_stay_on_one_side_of_the_split(tmp_path, write_photo):
    pair = ("cju30bmab08bi0835mvlr6e0r", "cju77k828z46w0871r0avuoo9")
    for name in pair:
        write_photo(f"kvasir_256/images/{name}.jpg", np.full((32, 32, 3), 100))
        write_photo(f"kvasir_256/masks/{name}.jpg", np.zeros((32, 32)))
    first, second = read_subjects(tmp_path)
    assert first.patient == second.patient
    assert first.validates == second.validates


def test_about_a_seventh_of_the_patients_validates():
    nothing = np.zeros((1, 1, 1), np.uint8)
    held_out = [Subject(f"{i}", f"{i}", "xray", nothing[..., None], nothing, nothing).validates for i in range(2000)]
    assert 0.12 < np.mean(held_out) < 0.18


def test_fingerprint_follows_content_of_what_is_read(tmp_path, write_photo):
    photo = write_photo("kvasir_256/images/a.png", np.zeros((4, 4)))
    write_photo("magnetic_tile/a.png", np.zeros((4, 4)))
    before = fingerprint(tmp_path)
    photo.write_bytes(b"other")
    after = fingerprint(tmp_path)
    assert set(before) == {"kvasir_256"}
    assert before != after


def test_the_training_data(test_data):
    subjects = read_subjects(test_data / "train", leave_out="colonoscopy")
    brains = {subject.name: subject for subject in subjects if subject.domain == "mr_brain"}
    mni = brains["mni152"]
    brain = mni.image[..., 0] > 12
    white, grey = (mni.image[..., 0][mni.classes[..., index] > 200].mean() for index in (1, 0))
    assert white > grey + 20  # as in every T1: the maps lie on the tissue
    assert (brain & (mni.classes.max(axis=3) > 128)).sum() > 0.97 * (mni.classes.max(axis=3) > 128).sum()
    assert {name for name, subject in brains.items() if subject.validates} == {"t2_thick_slices"}
    unlabelled = ("breast", "crlm")  # cancers somewhere, no masks
    assert not any(word in subject.name.lower() for subject in subjects for word in unlabelled)
