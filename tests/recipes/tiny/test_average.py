import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.tiny.commands import main


@pytest.fixture
def write(tmp_path):
    def file(name, **values):
        save_file({key: torch.as_tensor(value) for key, value in values.items()}, tmp_path / name)
        return str(tmp_path / name)

    return file


def test_the_mean_of_three(write, tmp_path):
    files = [
        write(f"{index}.safetensors", weight=torch.tensor([value, 2.0]).half(), steps=torch.tensor([7]))
        for index, value in enumerate((1.0, 2.0, 6.0))
    ]
    assert main(["average", *files, "-o", str(tmp_path / "mean.safetensors")]) == 0
    mean = load_file(tmp_path / "mean.safetensors")
    assert mean["weight"].tolist() == [3.0, 2.0]
    assert mean["weight"].dtype == torch.float16
    assert mean["steps"].tolist() == [7]


def test_the_image_side_alone(write, tmp_path):
    file = write("a.safetensors", **{"visual.proj": torch.ones(2), "text_projection": torch.ones(3)})
    assert main(["average", file, "--image-side", "-o", str(tmp_path / "image.safetensors")]) == 0
    assert list(load_file(tmp_path / "image.safetensors")) == ["visual.proj"]


def test_other_sizes_are_refused(write, tmp_path, capsys):
    files = [write("a.safetensors", weight=torch.zeros(2)), write("b.safetensors", weight=torch.zeros(3))]
    assert main(["average", *files, "-o", str(tmp_path / "mean.safetensors")]) == 2
    assert "E_WEIGHTS: not like the first file" in capsys.readouterr().err
    assert not (tmp_path / "mean.safetensors").exists()
