import numpy as np
import torch
from PIL import Image

from anomalyclip_monai.embedded.crops import UNKNOWN, Crop, Crops
from anomalyclip_monai.embedded.sheets import outlined, write_sheets


def test_outlines_and_tint():
    label = torch.zeros(10, 12, dtype=torch.uint8)
    label[2:6, 3:8] = 1
    label[8:] = UNKNOWN
    picture = outlined(Crop(torch.full((3, 10, 12), 100, dtype=torch.uint8), label))
    assert (picture == [255, 0, 0]).all(axis=2).sum() == 4 * 5 - 2 * 3  # the border of a rectangle
    assert picture[3, 4].tolist() == [100, 100, 100]
    assert picture[9, 0].tolist() == [60, 60, 160]


def test_a_sheet_per_domain(subjects, tmp_path):
    crops = Crops([subject for subject in subjects if subject.domain in ("ultrasound", "xray")], size=32)
    files = write_sheets(crops, tmp_path)
    assert [file.name for file in files] == ["crops_ultrasound.png", "crops_xray.png"]
    assert np.asarray(Image.open(files[0])).shape == (4 * 32, 8 * 32, 3)
