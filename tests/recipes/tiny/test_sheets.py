import numpy as np
import torch
from PIL import Image

from recipes.tiny.crops import UNKNOWN, Crop, Crops
from recipes.tiny.sheets import draw_maps, outlined, with_map, write_sheets
from recipes.tiny.validation import Case


def test_outlines_and_tint():
    label = torch.zeros(10, 12, dtype=torch.uint8)
    label[2:6, 3:8] = 1
    label[8:] = UNKNOWN
    picture = outlined(Crop(torch.full((3, 10, 12), 100, dtype=torch.uint8), label, "xray"))
    assert (picture == [255, 0, 0]).all(axis=2).sum() == 4 * 5 - 2 * 3  # the border of a rectangle
    assert picture[3, 4].tolist() == [100, 100, 100]
    assert picture[9, 0].tolist() == [60, 60, 160]


def test_a_sheet_per_domain(subjects, tmp_path):
    crops = Crops([subject for subject in subjects if subject.domain in ("ultrasound", "xray")], size=32)
    files = write_sheets(crops, tmp_path)
    assert [file.name for file in files] == ["crops_ultrasound.png", "crops_xray.png", "crops_surface.png"]
    assert np.asarray(Image.open(files[0])).shape == (4 * 32, 8 * 32, 3)


def _case(group: str, grey: int, lesion: bool) -> Case:
    label = np.zeros((8, 8), np.uint8)
    label[2:6, 2:6] = lesion
    return Case(group, np.full((3, 8, 8), grey, np.uint8), label)


def test_a_picture_under_its_map():
    values = np.zeros((8, 8), np.float32)
    values[:, 4:] = 0.5
    picture = with_map(values, _case("polyp", 100, True), 0.5)
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[2, 2].tolist() == [255, 255, 255]  # the border of the lesion
    assert picture[3, 3].tolist() == [100, 100, 100]  # its inside
    assert picture[3, 4].tolist() == [0, 255, 255]  # the border of the mask lies over that of the lesion
    # .5 has 3/5 of the strongest opacity .6 and the colour (225, 60, 80)
    assert picture[3, 6].tolist() == [145, 86, 93]


def test_the_worst_come_first(tmp_path):
    cases = [_case("polyp", grey, True) for grey in (10, 20, 30)] + [_case("healthy", 40, False)]
    maps = np.zeros((4, 8, 8), np.float32)
    maps[0, 2:6, 2:6] = maps[2, 2:6, 2:4] = 1  # all, nothing and half of the lesion
    sheet = np.asarray(Image.open(draw_maps(maps, cases, tmp_path / "sheet.png")))
    assert sheet.shape == (2 * 8, 8 * 8, 3)
    assert sheet[0, ::8, 0].tolist() == [20, 30, 10, 0, 0, 0, 0, 0]
    assert sheet[8, ::8, 0].tolist() == [40, 0, 0, 0, 0, 0, 0, 0]
