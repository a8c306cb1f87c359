"""``benchmarks/sizes.py`` of the recipe: where balls lie, how large they are, what is read of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from recipes.tiny.benchmarks import sizes

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """A grey box of 54 x 60 x 56 mm in air."""
    data = np.zeros((60, 66, 32), dtype=np.float32)
    data[3:57, 3:63, 2:30] = 100
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "healthy.nii.gz")
    return tmp_path / "healthy.nii.gz"


def test_balls_lie_deep_and_apart():
    tissue = np.zeros((60, 66, 32), dtype=bool)
    tissue[3:57, 3:63, 2:30] = True
    spacing = np.array([1.0, 1.0, 2.0])
    centres = sizes.places(tissue, spacing, 5, 12.0, seed=0)
    assert len(centres) == 5
    assert (centres >= [13, 13, 7]).all()  # more than 10 mm from the border at 2.5, 2.5 and 1.5 voxels
    assert (centres <= [46, 52, 24]).all()
    apart = np.linalg.norm((centres[:, None] - centres) * spacing, axis=2)
    assert apart[~np.eye(5, dtype=bool)].min() >= 12
    assert len(sizes.places(tissue, spacing, 5, 100.0, seed=0)) == 1
    assert sizes.places(np.zeros((5, 6, 7), dtype=bool), spacing, 5, 1.0, seed=0).shape == (0, 3)


def test_distances_are_in_mm_to_the_closest_centre():
    away = sizes.distances((9, 5, 4), (1.0, 1.0, 2.0), np.array([[1, 2, 1], [7, 2, 1]]))
    assert away[1, 2, 1] == away[7, 2, 1] == 0
    assert away[3, 2, 1] == 2
    assert away[7, 2, 3] == 4


def test_what_is_read_from_the_files(healthy, monkeypatch, capsys):
    """A command that marks what was lifted, and a box of 2 x 2 x 2 voxels elsewhere."""
    asked: list[Sequence[str]] = []

    def command(arguments: Sequence[str]) -> int:
        asked.append(arguments)
        image = nib.load(arguments[1])
        heatmap = (image.get_fdata() - 100) / 50
        heatmap[4:6, 4:6, 3:5] = 0.9
        out = Path(arguments[3]) / "balls"
        out.mkdir(parents=True)
        nib.save(nib.Nifti1Image(heatmap, image.affine), out / "heatmap.nii.gz")
        nib.save(nib.Nifti1Image((heatmap > 0.5).astype(np.uint8), image.affine), out / "mask.nii.gz")
        return 0

    monkeypatch.setattr(sizes, "command", command)
    few, strong = (
        sizes.main([str(healthy), "--radii", "3", "--count", "2", "--contrast", contrast, "--", "--axes", "1"])
        for contrast in ("0.2", "0.3")
    )
    # .2 of 100 are 20 of 50: a height of .4, no mask; .3 are .6. The box has 8 voxels of 2 mm3.
    assert few == [sizes.Row(3.0, pytest.approx(0.4), 0.0, pytest.approx(0.016))]
    assert strong == [sizes.Row(3.0, pytest.approx(0.6), 1.0, pytest.approx(0.016))]
    assert asked[0][-2:] == ["--axes", "1"]
    assert "| 3 | 0.60 | 1.00 | 0.0 |" in capsys.readouterr().out


def test_no_tissue_is_one_line(tmp_path):
    file = tmp_path / "air.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((8, 9, 10), dtype=np.float32), np.eye(4)), file)
    with pytest.raises(SystemExit, match="give a volume with a head or a body"):
        sizes.main([str(file)])
