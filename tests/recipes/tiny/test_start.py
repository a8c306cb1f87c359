import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.resources import bundle_root
from anomalyclip_monai.weights import read_state_dict
from anomalyclip_monai.weights.bundle import backbone_file
from recipes.tiny import start


def test_the_bundle_starts_as_it_is():
    network = start.starting_network("bundle")
    shipped = read_state_dict(backbone_file(bundle_root("tiny")))
    for key, value in network.clip.state_dict().items():
        assert torch.equal(value, shipped[key].to(value.dtype)), key


def test_the_second_network_starts_as_it_is_with_the_text_of_the_first():
    network = start.starting_network("bundle", image_size=320)
    root = bundle_root("tiny")
    image = read_state_dict(root / "models" / "320" / "image_encoder.safetensors")
    text = read_state_dict(backbone_file(root))
    assert network.settings.size == (320, 320)
    assert {key for key in text if key.startswith("visual.")} == set(image)
    for key, value in network.clip.state_dict().items():
        shipped = image if key.startswith("visual.") else text
        assert torch.equal(value, shipped[key].to(value.dtype)), key


@pytest.mark.parametrize("size", [0, 300])
def test_a_square_of_no_multiple_of_32_is_refused(size):
    with pytest.raises(UsageError, match="give a multiple of 32"):
        start.starting_network("bundle", image_size=size)


def test_positions_of_another_grid_are_resized(tmp_path):
    state = read_state_dict(backbone_file(bundle_root("tiny")))
    key = "visual.positional_embedding"
    width = state[key].shape[1]
    columns = torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(4)  # a 4 x 4 grid that knows its columns
    state[key] = torch.cat([torch.full((1, width), 9.0), columns[:, None].expand(16, width)]).half().contiguous()
    save_file(state, tmp_path / "small.safetensors")
    found = start.starting_network(tmp_path / "small.safetensors").clip.visual.positional_embedding
    assert (found[0] == 9).all()
    # 4 columns on 32: the centre of the first of the new ones lies left of the centre of the first old one
    row = found[1:33, 0].tolist()
    assert row[0] == 0
    assert row[31] == 3
    assert row[4] == 0.0625
    assert row[5] == 0.1875


@pytest.fixture
def imagenet_package(tmp_path, monkeypatch):
    """A package like the one with the weights, under the names of its own network."""
    monkeypatch.setattr(start, "IMAGENET_PACKAGE", "imagenet_weights_of_a_test")
    folder = tmp_path / "imagenet_weights_of_a_test"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("imagenet_weights_of_a_test", None)
    torch.manual_seed(0)
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save(
        {f"_other.{index}": value for index, value in enumerate(state.values())}, folder / "models" / "lite0.pth"
    )
    return state


def test_imagenet_gives_the_encoder_and_the_bundle_the_text(imagenet_package):
    network, bundle = start.starting_network("imagenet"), read_state_dict(backbone_file(bundle_root("tiny")))
    state = network.clip.state_dict()
    encoder = "visual.conv1.encoder."
    for key in ("conv_stem.weight", "blocks.3.1.conv_dw.weight", "blocks.6.0.bn3.running_var"):
        assert torch.equal(state[encoder + key], imagenet_package[key])
    for key, value in bundle.items():
        if not key.startswith("visual."):
            assert torch.equal(state[key], value.to(state[key].dtype)), key
        elif key.endswith("lateral.0.weight"):
            assert not torch.equal(state[key], value.float())
    again = start.starting_network("imagenet").clip.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in state.items())


def test_without_the_package_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(start, "IMAGENET_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(UsageError, match=r"E_EXTRA.*pip install -e '\.\[train\]'"):
        start.starting_network("imagenet")
