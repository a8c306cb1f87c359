"""The facts agree with open_clip's table and with each other."""

from __future__ import annotations

from open_clip.pretrained import get_pretrained_cfg

from anomalyclip_monai.networks import named_config
from anomalyclip_monai.weights.published import DEFAULT_PROMPTS, MODELS, VITL14_336


def test_backbone_is_what_open_clip_lists():
    listed = get_pretrained_cfg("ViT-L-14-336-quickgelu", "openai")
    hub, archive = VITL14_336.backbone
    assert archive.address == listed["url"]
    assert archive.address.split("/")[-2] == archive.sha256
    assert listed["hf_hub"].strip("/") == VITL14_336.hub_repository
    assert VITL14_336.hub_repository in hub.address
    assert named_config(VITL14_336.architecture, "openai")["quick_gelu"]


def test_each_file_can_be_checked_and_its_address_ends_with_its_name():
    for file in (*VITL14_336.backbone, *VITL14_336.prompts.values()):
        assert (file.sha256 is None) != (file.blob_id is None)
        assert len(file.sha256 or "0" * 64) == 64
        assert len(file.blob_id or "0" * 40) == 40
        assert file.address.startswith("https://")
        assert file.address.endswith(f"/{file.name}")


def test_folder_names_of_the_authors_mislead():
    visa, mvtec = VITL14_336.prompts["visa"], VITL14_336.prompts["mvtec"]
    assert (visa.name, visa.trained_on) == ("9_12_4_multiscale/epoch_15.pth", "VisA")
    assert (mvtec.name, mvtec.trained_on) == ("9_12_4_multiscale_visa/epoch_15.pth", "MVTec AD")
    assert visa.commit in visa.address


def test_prompts_are_172_kilobytes():
    values = sum(
        shape[0] * shape[1] * (shape[2] if len(shape) == 3 else 1) for shape in VITL14_336.prompt_shapes.values()
    )
    assert values * 4 == 172_032


def test_names():
    assert {name: model.name for name, model in MODELS.items()} == {"vitl14_336": "vitl14_336"}
    assert DEFAULT_PROMPTS in VITL14_336.prompts
