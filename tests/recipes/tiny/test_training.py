import json

import pytest
import torch

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.weights import read_state_dict
from recipes.tiny.training import Plan, Training


@pytest.fixture
def plan():
    return Plan(
        crops=24, batch=4, warmup=1, validate_every=3, workers=0, block_rate=2e-3, stem_rate=2e-3, sparse_until=0.7
    )


@pytest.fixture
def start(tiny_network, subjects, tmp_path, one_thread):
    """Begins or goes on with a run in a folder, always from the same weights."""
    initial = {key: value.clone() for key, value in tiny_network.clip.state_dict().items()}

    def begin(folder, plan):
        tiny_network.clip.load_state_dict(initial)
        return Training(tiny_network, subjects[:12], plan, tmp_path / folder)

    return begin


def test_a_broken_run_ends_as_an_unbroken_one(start, plan, tmp_path):
    start("whole", plan).run()
    start("broken", plan).run(until=2)
    assert start("broken", plan).step == 2
    start("broken", plan).run()
    whole, broken = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "broken"))
    assert whole["step"] == broken["step"] == 6
    for part in ("visual", "average"):
        for key, value in whole[part].items():
            assert torch.equal(value, broken[part][key]), key


def test_crops_are_small_at_first(start, plan, tmp_path):
    plan = Plan(**{**vars_of(plan), "early_size": 64, "early_until": 0.5})

    def sides(training):
        found = []
        for crops in training.batches(training.crops):
            if training.progress >= 1:
                return found
            found.append(crops.image.shape[-1])
            training.step += 1

    training = start("run", plan)
    full = training.network.settings.size[0]
    assert full != 64
    assert sides(training) == [64, 64, 64, full, full, full]
    start("whole", plan).run()
    start("broken", plan).run(until=4)
    start("broken", plan).run()
    whole, broken = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "broken"))
    for key, value in whole["visual"].items():
        assert torch.equal(value, broken["visual"][key]), key


def test_lines_behind_the_saved_state_are_dropped(start, plan, tmp_path):
    start("run", plan).run(until=2)
    curve = tmp_path / "run" / "curve.jsonl"
    with open(curve, "a") as file:
        file.write('{"step": 2, "loss": 1}\n{"step": 3, "loss": 1}\n')
    start("run", plan)
    assert [json.loads(line)["step"] for line in curve.read_text().splitlines()] == [2]


def test_a_run_with_another_plan_is_refused(start, plan):
    start("run", plan).run(until=1)
    with pytest.raises(UsageError, match="E_RESUME: a run with another seed is there"):
        start("run", Plan(**{**vars_of(plan), "seed": 5}))


def test_another_machine_may_have_other_processes(start, plan):
    start("run", plan).run(until=1)
    assert start("run", Plan(**{**vars_of(plan), "workers": 3, "save_every": 5.0})).step == 1


def vars_of(plan):
    return {name: getattr(plan, name) for name in plan.__slots__}


def test_it_learns(start, plan, tmp_path):
    plan = Plan(**{**vars_of(plan), "crops": 4 * 60, "validate_every": 1000})
    training = start("run", plan)
    images, labels, _ = next(iter(training.batches(training.crops)))
    first = training._learn(images, labels)["loss"]
    for _ in range(25):
        training.step += 1
        last = training._learn(images, labels)["loss"]
    assert last < 0.8 * first


def test_the_text_side_stays_and_the_export_loads(start, plan, tmp_path, tiny_network):
    before = {key: value.clone() for key, value in tiny_network.clip.state_dict().items()}
    training = start("run", plan)
    training.run()
    exported = read_state_dict(tmp_path / "run" / "backbone.safetensors")
    assert set(exported) == set(before)
    moved = [key for key, value in exported.items() if not torch.allclose(value.float(), before[key], atol=2e-3)]
    assert moved
    assert all(key.startswith("visual.") for key in moved)
    tiny_network.clip.load_state_dict(exported)


def test_validation_sees_the_average_and_leaves_the_network_alone(start, plan, monkeypatch):
    training = start("run", plan)
    training.held_out = ["a case"]
    visual, seen = training.network.clip.visual, []
    monkeypatch.setattr("recipes.tiny.training.predict", lambda network, cases: seen.append(network.clip))
    monkeypatch.setattr("recipes.tiny.training.measure", lambda maps, cases: {"polyp.dice": 0.5})
    monkeypatch.setattr("recipes.tiny.training.best_threshold", lambda maps, cases: 0.5)
    training._validate()
    assert seen[0].visual is training.average
    assert training.network.clip.visual is visual


def test_a_run_ends_with_the_mean_of_its_last_checkpoints(start, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.tiny.training.measure", lambda maps, cases: {"polyp.dice": 0.5})
    monkeypatch.setattr("recipes.tiny.training.predict", lambda network, cases: None)
    monkeypatch.setattr("recipes.tiny.training.best_threshold", lambda maps, cases: 0.5)
    training = start("run", Plan(**{**vars_of(plan), "validate_every": 1}))
    training.held_out = ["a case"]
    training.run()
    files = sorted((tmp_path / "run").glob("checkpoint_*.safetensors"))
    assert [file.stem for file in files] == ["checkpoint_000004", "checkpoint_000005", "checkpoint_000006"]
    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    mean = sum(read_state_dict(file)[key].float() for file in files) / 3
    torch.testing.assert_close(
        read_state_dict(tmp_path / "run" / "backbone.safetensors")[key].float(), mean, atol=1e-3, rtol=0
    )


def test_the_rate_rises_then_falls(start, plan):
    training = start("run", Plan(**{**vars_of(plan), "warmup": 2, "crops": 400}))
    rates = []
    for step in range(0, 101, 10):
        training.step = step
        rates.append(training._rate())
    assert rates[0] == pytest.approx(0.5)
    assert rates[1] > 0.9
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_a_batch_is_learned_from_again_mirrored(start, plan, tmp_path):
    plan = Plan(**{**vars_of(plan), "echo": 2})

    def seen(training, count):
        found = []
        for crops in training.batches(training.crops):
            if len(found) == count:
                return found
            found.append(crops.image)
            training.step += 1

    first, again, other = seen(start("run", plan), 3)
    assert torch.equal(again, first.flip(-1))
    assert not torch.equal(other, first)
    broken = start("run", plan)
    broken.step = 1
    assert torch.equal(seen(broken, 1)[0], again)


def test_a_batch_without_crops_is_a_step_without_learning(start, plan):
    training = start("run", plan)
    before = [parameter.clone() for parameter in training.learned]
    training.learn_from(torch.zeros(0, 3, 64, 64, dtype=torch.uint8), torch.zeros(0, 64, 64, dtype=torch.uint8))
    assert training.step == 1
    assert all(torch.equal(old, new) for old, new in zip(before, training.learned, strict=True))


def test_the_curve_says_how_long_crops_were_waited_for(start, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.tiny.training.NOTED", 2)
    training = start("run", plan)
    monkeypatch.setattr(training, "_learn", lambda images, labels: {"loss": torch.tensor(float(training.step))})
    training.run()
    curve = (tmp_path / "run" / "curve.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, curve) if "loss" in line]
    assert [line["loss"] for line in lines] == [0.5, 2.5, 4.5]
    assert all(0 <= line["waited"] <= line["seconds"] + 1 for line in lines)
