"""The ablation table of a small network: which rows there are, what they share, and what is done only once."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from made_report import made_report
from photo_set import make_photo_set
from torch import nn

from anomalyclip_monai import resources
from anomalyclip_monai.cli import main
from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.engines.ablation import (
    GROUPS,
    Ablation,
    AblationReport,
    MeasuredRow,
    RowReport,
    ablation,
    short_table,
)
from anomalyclip_monai.engines.ablation.ablation import noun_of
from anomalyclip_monai.engines.ablation.remembering import RememberingCLIP
from anomalyclip_monai.engines.ablation.rows import Nouns, Row, base_row, changed_rows, depths, layer_choices
from anomalyclip_monai.engines.evaluation import set_evaluator as engine
from anomalyclip_monai.engines.prompts import features, learn_prompts
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIP, NetworkSettings
from anomalyclip_monai.networks.anomaly_clip import TwoStateCLIP
from anomalyclip_monai.outputs.report import Report
from anomalyclip_monai.outputs.report.content import Difference, Measure, MethodReport
from anomalyclip_monai.outputs.report.tables import Table
from anomalyclip_monai.weights.choice import ModelChoice, choose_model

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # MONAI says on every start that configurations can run code; ours come with the package.
    pytest.mark.filterwarnings("ignore:.*parsing config_file.*:UserWarning"),
]

NETWORK = {
    "image_size": 56,
    "feature_layers": [3, 4],
    "dpam_layer": 3,
    "n_ctx": 4,
    "depth": 3,
    "t_n_ctx": 2,
    "sigma": 1.0,
}
PAPER = asdict(NetworkSettings())


@pytest.fixture
def bundle(tmp_path: Path, tiny_clip: nn.Module) -> Path:
    """A bundle with ``tiny_clip``: 4 blocks beside 3 text blocks, 16 patches of 14 pixels."""
    shipped, root = resources.bundle_root("tiny"), tmp_path / "anomalyclip_toy"
    (root / "models").mkdir(parents=True)
    shutil.copytree(shipped / "configs", root / "configs")
    for name in ("inference", "train"):
        path = root / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config["settings"] = {"_target_": config["settings"]["_target_"], **NETWORK}
        config["network_def"].get("networks", [])[1:] = []
        path.write_text(json.dumps(config))
    safetensors.torch.save_file(tiny_clip.state_dict(), root / "models" / "backbone.safetensors")
    description = {
        "embed_dim": 16,
        "vision_cfg": {"layers": 4, "width": 32, "head_width": 16, "patch_size": 14, "image_size": 56},
        "text_cfg": {"width": 32, "heads": 2, "layers": 3},
    }
    (root / "models" / "open_clip_config.json").write_text(json.dumps({"model_cfg": description}))
    torch.save(AnomalyCLIP(tiny_clip, **NETWORK).state_dict(), root / "models" / "model.pt")
    return root


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An auxiliary set of 6 photos and one of 8 to be measured; reports without pictures, which cost a second each."""

    def write(report: Report, folder: Path, _: object) -> None:
        (folder / "report.json").write_text(json.dumps(report.to_json(), allow_nan=False))

    monkeypatch.setattr(engine, "write_report", write)
    return make_photo_set(tmp_path / "auxiliary", 6), make_photo_set(tmp_path / "measured", 8, (44, 52))


class Calls:
    """Counts what is expensive: images encoded for learning, batches encoded for measuring, steps of learning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learned = self.measured = self.trainings = 0
        frozen, encode, learn = features.encode_frozen, TwoStateCLIP.encode_image, ablation.learn_prompts

        def encode_frozen(network: AnomalyCLIP, images: torch.Tensor) -> Any:
            self.learned += len(images) * bool(images.any())  # a blank one tells the shape
            return frozen(network, images)

        def encode_image(network: TwoStateCLIP, images: torch.Tensor) -> Any:
            self.measured += isinstance(network, RememberingCLIP)
            return encode(network, images)

        def learn_prompts(*args: Any, **kwargs: Any) -> Any:
            self.trainings += 1
            return learn(*args, **kwargs)

        monkeypatch.setattr(features, "encode_frozen", encode_frozen)
        monkeypatch.setattr(TwoStateCLIP, "encode_image", encode_image)
        monkeypatch.setattr(ablation, "learn_prompts", learn_prompts)


def make_ablation(bundle: Path, sets: tuple[Path, Path], out: Path, **options: Any) -> Ablation:
    options = {"epochs": 1, **options, "evaluation": {"bootstrap": 40, **options.get("evaluation", {})}}
    choice = options.pop("choice", None) or choose_model(str(bundle))
    return Ablation(choice, [("folder", sets[0])], "folder", sets[1], out, **options)


def rows_of(found: AblationReport) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in found.to_json()["rows"]}


def test_rows_of_the_published_configuration():
    assert layer_choices(24) == [[6], [12], [18], [24], [18, 24], [12, 18, 24], [6, 12, 18, 24]]
    assert layer_choices(4) == [[1], [2], [3], [4], [3, 4], [2, 3, 4], [1, 2, 3, 4]]
    assert (depths(12), depths(3)) == ([1, 3, 6, 9, 12], [1, 2, 3])
    rows = changed_rows(PAPER, 24, 12, Nouns("tile", "colon"))
    titles = {group: [row.title for row in rows if row.group == group] for group in GROUPS}
    assert titles["attention"] == ["q-q", "k-k", "none"]
    assert titles["layers"] == ["6", "12", "18", "18, 24", "12, 18, 24", "6, 12, 18, 24"]
    assert titles["context"] == ["4", "8", "16"]
    assert titles["depth"] == ["1 (no deep prompts)", "3", "6", "12"]
    assert titles["tokens"] == ["1", "2", "8"]
    assert titles["prompts"][0] == "named object (tile, then colon)"
    assert base_row(PAPER).title.startswith("base: v-v, object, layers 24, n_ctx 12, depth 9, t_n_ctx 4")


def test_every_row_changes_one_thing_and_none_is_the_base():
    rows = changed_rows(PAPER, 24, 12, Nouns("tile", "colon"))
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        changes = len(row.network) + (row.terms != "both") + (row.prompts != "learned")
        assert changes == 1, row
        assert all(PAPER[name] != value for name, value in row.network.items())
    named = next(row for row in rows if row.key == "named_object-tile-colon")
    assert (named.taught, named.network) == ({"object_name": "tile"}, {"object_name": "colon"})


def test_a_base_with_a_named_object_is_set_against_the_agnostic_prompt():
    rows = changed_rows({**PAPER, "object_name": "colon"}, 24, 12, Nouns("colon", "colon"))
    assert [row.title for row in rows if row.prompts == "learned" and row.group == "prompts"] == ["object-agnostic"]


def test_without_deep_prompts_their_length_means_nothing():
    rows = changed_rows({**PAPER, "depth": 1}, 24, 12, Nouns(None, None))
    assert not [row for row in rows if row.group == "tokens"]
    assert next(row for row in rows if row.key.startswith("named_object")).problem == (
        "no single noun is known for the auxiliary and the measured images - give --object-names AUX SET"
    )


def test_nouns_come_from_presets_and_single_classes():
    def of(dataset: str, *categories: str) -> dict[str, list[Any]]:
        path = Path("any.png")
        return {dataset: [Sample(name, path, 1, (), name, name, False, "auto") for name in categories]}

    assert noun_of(of("mvtec", "metal_nut", "metal_nut")) == "metal nut"
    assert noun_of(of("visa", "pcb1", "pcb2")) is None
    assert noun_of(of("colondb", "colondb")) == "colon"
    assert noun_of(of("csv", "csv")) is None  # the list does not say
    assert noun_of(of("colondb", "colondb") | of("mvtec", "screw")) is None


def test_images_to_be_measured_teach_nothing(bundle, sets, tmp_path):
    with pytest.raises(UsageError, match="E_AUXILIARY: 8 of the images to be measured are auxiliary ones"):
        make_ablation(bundle, (sets[1], sets[1]), tmp_path / "out")


def test_remembered_features_are_the_same_bit_for_bit(tmp_path, tiny_clip, monkeypatch):
    images = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    plain = AnomalyCLIP(tiny_clip, **NETWORK)
    first = RememberingCLIP(tiny_clip, plain.settings, folder=tmp_path)
    first.load_state_dict(plain.state_dict())
    found = first.encode_image(images)
    again = RememberingCLIP(tiny_clip, replace(plain.settings, n_ctx=5), folder=tmp_path)
    other = RememberingCLIP(tiny_clip, replace(plain.settings, local_attention="q-q"), folder=tmp_path)
    calls = Calls(monkeypatch)
    remembered = again.encode_image(images)
    assert calls.measured == 0
    expected = plain.encode_image(images)
    for features_of in (found, remembered):
        assert torch.equal(features_of.image, expected.image)
        assert features_of.grid == expected.grid == (4, 4)
        assert list(features_of.patches) == [3, 4]
        assert all(torch.equal(features_of.patches[layer], expected.patches[layer]) for layer in (3, 4))
    assert not torch.equal(other.encode_image(images).patches[4], expected.patches[4])
    assert calls.measured == 1
    assert all(
        torch.equal(*pair) for pair in zip(first.score_and_map(images), plain.score_and_map(images), strict=True)
    )


def test_what_is_shared_is_done_once_and_what_is_done_is_kept(bundle, sets, tmp_path, monkeypatch):
    calls, out, seen = Calls(monkeypatch), tmp_path / "out", []
    groups = ["attention", "prompts", "tokens"]
    content = make_ablation(bundle, sets, out, groups=groups).run(lambda found: seen.append(found.row.key))
    rows = rows_of(content)
    assert list(rows) == [
        *("base", "local_attention-q-q", "local_attention-k-k", "local_attention-none", "named_object--", "shipped"),
        *("hand_written", "fixed_pair", "t_n_ctx-1", "t_n_ctx-4", "t_n_ctx-8"),
    ]
    assert seen[-3:] == ["local_attention-q-q", "local_attention-k-k", "local_attention-none"]  # the last to be done
    assert calls.learned == 4 * 6  # 6 photos, once for v-v and once for each other kind
    assert calls.measured == 4 * 2 * 8  # 8 photos and their mirror images
    assert not (out / "work").exists()

    # a row that cannot be built says why
    assert rows["t_n_ctx-8"]["error"] == "E_ROW: t_n_ctx (8) must be from 1 to 6"
    assert rows["named_object--"]["error"].startswith("E_ROW: no single noun is known for the auxiliary and the")

    # the base is what the training command learns
    learned = learn_prompts(
        choose_model(bundle), [("folder", sets[0])], tmp_path / "alone", options={"epochs": 1, "log": False}
    )
    prompts = [
        torch.load(place / "model.pt", weights_only=True) for place in (tmp_path / "alone", out / "rows/base/prompts")
    ]
    assert all(torch.equal(prompts[0][key], prompts[1][key]) for key in prompts[0])
    assert rows["base"]["final_losses"] == [learned[0]["curve"][-1]["loss"]]
    assert rows["base"]["difference"] == {}

    # differences are those of the values, with an interval of the same resampled sets
    for key in ("shipped", "hand_written", "t_n_ctx-1", "local_attention-q-q"):
        row = rows[key]
        test = row["difference"]["pixel_auroc"]
        assert (
            test["difference"]
            == row["measures"]["pixel_auroc"]["value"] - rows["base"]["measures"]["pixel_auroc"]["value"]
        )
        assert test["low"] <= test["difference"] <= test["high"]
    assert rows["shipped"]["final_losses"] == rows["fixed_pair"]["final_losses"] == []
    assert json.loads((out / "folder" / "ablation.json").read_text()) == content.to_json()
    text = (out / "folder" / "ablation.md").read_text()
    assert "| not built: E_ROW: t_n_ctx (8) must be from 1 to 6 |" in text
    assert "## Local attention" in text
    assert "favours that row" in text

    # nothing of it is done again
    before = (calls.learned, calls.measured)
    again = make_ablation(bundle, sets, out, groups=groups).run()
    assert (calls.learned, calls.measured) == before
    assert again.to_json() == content.to_json()


def test_a_killed_run_goes_on_behind_the_last_row(bundle, sets, tmp_path, monkeypatch):
    out = tmp_path / "out"
    calls = Calls(monkeypatch)

    def stop(found: RowReport) -> None:
        if found.row.key == "loss-global":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_ablation(bundle, sets, out, groups=["loss"]).run(stop)
    assert not (out / "folder" / "ablation.json").exists()
    encoded = calls.learned, calls.measured
    content = make_ablation(bundle, sets, out, groups=["loss"]).run()
    assert (calls.learned, calls.measured) == encoded == (6, 2 * 8)
    assert [found.row.key for found in content.rows] == ["base", "loss-global", "loss-local"]
    assert rows_of(content)["loss-global"]["loss"] == "global"

    # a score that is read off the map is no measure of the global loss
    note = "the global loss teaches the class token, which is not what is measured"
    assert note not in " ".join(short_table(content).notes)
    assert note in " ".join(short_table(replace(content, image_score="map_top2")).notes)


def test_few_groups_mark_no_difference():
    measures = {"a": Measure(0.7, 0.6, 0.8), "b": Measure(0.7, 0.6, 0.8)}
    guess = MethodReport("brightness", (), {"a": Measure(0.5), "b": Measure(undefined="-")})
    centre = MethodReport("centre", (), {})
    whole = replace(
        Report.from_json(made_report()),
        methods={"anomalyclip": MethodReport("own", ("one",), measures), "brightness": guess, "centre": centre},
        primary=("a", "b", "c"),
        measure_titles={"a": "A", "b": "B"},
        warnings=(),
    )
    base = MeasuredRow(Row("base", "", "base"), 1, (0.5,), measures, {}, (), 1.4, 2.4, "base/report.html")
    better, unclear = Difference(0.1, 0.05, 0.15, 0.01), Difference(-0.1, -0.25, 0.05, 0.2)
    other = replace(base, row=Row("local", "loss", "local alone"), differences={"a": better, "b": unclear})

    def table_of(groups: int) -> Table:
        samples = tuple(replace(sample, group=str(i % groups)) for i, sample in enumerate(whole.samples.samples))
        return short_table(
            AblationReport(
                measured=replace(whole, samples=replace(whole.samples, samples=samples)),
                base=base,
                changed=(other,),
                auxiliary={},
                training={},
                epochs=1,
                seeds=(111,),
                image_score="class_token",
            )
        )

    table = table_of(groups=10)
    assert [table.header, *table.rows] == [
        ["", "A", "+/-", "B", "+/-", "s"],
        ["base", "70.0", "", "70.0", "", "4"],
        ["loss: local alone", "70.0", "+10.0†", "70.0", "\N{MINUS SIGN}10.0", "4"],
        ["brightness", "50.0", "", "", "", ""],
        ["centre", "", "", "", "", ""],
    ]
    few = table_of(groups=9)
    assert few.rows[1][2] == "+10.0"
    assert any("none is marked" in note for note in few.notes)


def test_several_seeds_and_no_bootstrap(bundle, sets, tmp_path):
    options = {"groups": ["tokens"], "seeds": (111, 112), "evaluation": {"bootstrap": 0}}
    content = make_ablation(bundle, sets, tmp_path / "out", **options).run()
    row = rows_of(content)["t_n_ctx-1"]
    assert len(row["final_losses"]) == 2
    assert row["measures"]["pixel_auroc"]["sd"] > 0
    assert set(row["difference"]["pixel_auroc"]) == {"difference"}
    assert any("2 seeds" in note for note in short_table(content).notes)


def test_a_named_backbone_with_named_objects(bundle, sets, tmp_path, monkeypatch):
    spoken = []
    initialise = AnomalyCLIP.__init__

    def build(self: AnomalyCLIP, *args: Any, **changes: Any) -> None:
        initialise(self, *args, **changes)
        spoken.append((type(self).__name__, self.settings.object_name))

    monkeypatch.setattr(AnomalyCLIP, "__init__", build)
    weights = str(bundle / "models" / "backbone.safetensors")
    clip = {"_target_": "anomalyclip_monai.weights.load_backbone", "weights": weights}
    settings = {"_target_": "anomalyclip_monai.networks.NetworkSettings", **NETWORK}
    definition = {"_target_": "anomalyclip_monai.networks.AnomalyCLIP", "clip": clip, "settings": settings}
    choice = ModelChoice(
        resources.bundle_root("vitl14_336"),
        {"evidence": {}},
        {"network_def": definition},
        backbone="ViT-toy",
        weights=weights,
    )
    options = {"choice": choice, "groups": ["prompts"], "nouns": ("magnetic tile", "screw")}
    content = make_ablation(bundle, sets, tmp_path / "out", **options).run()
    rows = rows_of(content)

    # learned with one noun, measured with the other
    row = rows["named_object-magnetic_tile-screw"]
    assert row["title"] == "named object (magnetic tile, then screw)"
    assert spoken.count(("RememberingCLIP", "screw")) == 1
    assert ("AnomalyCLIP", "magnetic tile") in spoken
    assert ("RememberingCLIP", "magnetic tile") not in spoken

    assert content.to_json()["model_title"] == "AnomalyCLIP ViT-toy"
    assert rows["shipped"]["error"].startswith("E_PROMPTS: nothing was learned for the backbone ViT-toy")
    assert "value" in rows["hand_written"]["measures"]["pixel_auroc"]


def test_the_command_prints_the_table(bundle, sets, tmp_path, capsys):
    command = [
        "evaluate",
        "folder",
        str(sets[1]),
        "-o",
        str(tmp_path / "out"),
        "--model",
        str(bundle),
        "--device",
        "cpu",
    ]
    auxiliary = ["--ablate", "folder", str(sets[0])]
    options = ["--epochs", "1", "--rows", "loss", "--bootstrap", "20", "--limit", "6"]
    assert main([*command, *auxiliary, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1/3", "2/3", "3/3"]
    assert [line.split("  ")[0] for line in lines[4:9]] == [
        *(lines[4].split("  ")[0], "loss: global alone", "loss: local alone", "brightness", "centre prior"),
    ]
    content = json.loads((tmp_path / "out" / "folder" / "ablation.json").read_text())
    assert content["samples"]["count"] == 6
    value = content["rows"][0]["measures"]["pixel_auroc"]["value"]
    assert f"{100 * value:.1f}" in lines[4]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--epochs", "2"], "E_USAGE: --epochs without --ablate"),
        (["--ablate", "folder", "x", "--methods", "clip"], "E_USAGE: --methods and --ablate"),
        (["--ablate", "folder", "{aux}", "--rows", "colour"], "E_OPTION: no rows colour"),
        (["--ablate", "folder", "nowhere"], "E_NOT_FOUND"),
        (["--ablate", "folder", "{aux}", "--seeds-count", "2", "--all", "x"], "E_USAGE"),
    ],
)
def test_wrong_requests_are_one_line(sets, tmp_path, capsys, more, line):
    filled = [word.format(aux=sets[0]) for word in more]
    assert main(["evaluate", "folder", str(sets[1]), "-o", str(tmp_path / "out"), *filled]) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith(line)
    assert len(errors.splitlines()) == 1


def test_another_network_is_refused(bundle, sets, tmp_path):
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["network_def"] = {"_target_": "anomalyclip_monai.networks.HandWrittenCLIP", "like": config["network_def"]}
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="E_MODEL: the network is a HandWrittenCLIP, the rows are changes"):
        make_ablation(bundle, sets, tmp_path / "out")
