"""The trainer: features once give what the direct way gives, only prompts change, and a run can be resumed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_network import rebuild
from ignite.engine import Events
from monai.transforms import Compose
from photo_set import make_photo_set
from PIL import Image
from torch.utils.data import DataLoader

from anomalyclip_monai.engines.prompts import (
    GlobalBatches,
    MapPictures,
    PromptInferer,
    PromptTrainer,
    ResumableCheckpoint,
    TrainingReport,
    fresh_prompts,
    learned,
    training_data,
    training_dataset,
)
from anomalyclip_monai.engines.prompts.items import TrainingData
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.losses import PromptLoss
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.transforms import ApplyPresetd, LoadImageCased

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS, BATCH = 5, 4


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    photos = make_photo_set(tmp_path / "photos", 10)
    return training_data([("folder", photos)], Compose([LoadImageCased(), ApplyPresetd()]), tmp_path / "slices")


def trainer_of(
    network: AnomalyCLIP,
    data: TrainingData,
    folder: Path,
    *,
    features: str = "none",
    augment: bool = False,
    seed: int = 111,
    epochs: int = EPOCHS,
    terms: str = "both",
    lr: float = 1e-2,
    handlers: tuple[Any, ...] = (),
) -> PromptTrainer:
    network = fresh_prompts(copy.deepcopy(network), seed)
    dataset = training_dataset(
        data, network, folder=folder, features=features, augment=augment, batch_size=BATCH, seed=seed
    )
    return PromptTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(dataset, batch_sampler=GlobalBatches(len(data), BATCH, seed)),
        network=network,
        optimizer=torch.optim.Adam(learned(network), lr=lr, betas=(0.5, 0.999)),
        loss_function=PromptLoss(terms),
        inferer=PromptInferer(),
        train_handlers=handlers,
    )


def losses(trainer: PromptTrainer) -> np.ndarray:
    return np.array([[epoch[name] for name in ("loss", "image_loss", "map_loss")] for epoch in trainer.curve])


def run(*args: Any, **kwargs: Any) -> PromptTrainer:
    trainer = trainer_of(*args, **kwargs)
    trainer.run()
    return trainer


def same_prompts(one: AnomalyCLIP, other: AnomalyCLIP) -> bool:
    return all(torch.equal(a, b) for a, b in zip(learned(one), learned(other), strict=True))


def test_features_once_give_the_losses_of_the_direct_way(data, tiny_network, tmp_path):
    direct = losses(run(tiny_network, data, tmp_path, lr=1e-3))
    assert direct[-1, 0] < 0.6 * direct[0, 0]  # something is learned
    for precision, tolerance in (("fp32", 1e-6), ("fp16", 1e-3), ("bf16", 1e-3)):
        once = losses(run(tiny_network, data, tmp_path / precision, features=precision, lr=1e-3))
        np.testing.assert_allclose(once[:, 0], direct[:, 0], rtol=tolerance)
    np.testing.assert_allclose(direct[:, 0], direct[:, 1] + 4 * direct[:, 2], rtol=1e-6)


def test_only_prompts_change(data, tiny_network, tmp_path):
    before = copy.deepcopy(tiny_network.clip.state_dict())
    trainer = run(tiny_network, data, tmp_path, epochs=1)
    after = trainer.network.clip.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(
        torch.equal(*pair)
        for pair in zip(learned(trainer.network), learned(fresh_prompts(tiny_network, 111)), strict=True)
    )
    assert not trainer.network.clip.training


def test_fresh_prompts_follow_the_seed(tiny_network):
    first = copy.deepcopy(fresh_prompts(tiny_network, 1))
    assert same_prompts(first, fresh_prompts(copy.deepcopy(tiny_network), 1))
    assert not same_prompts(first, fresh_prompts(copy.deepcopy(tiny_network), 2))
    assert 0.01 < float(first.ctx.detach().std()) < 0.03


@pytest.mark.parametrize("terms", ["global", "local"])
def test_one_loss_alone(data, tiny_network, tmp_path, terms):
    curve = losses(run(tiny_network, data, tmp_path, terms=terms, epochs=2, features="fp32"))
    used, unused = (1, 2) if terms == "global" else (2, 1)
    assert (curve[:, unused] == 0).all()
    np.testing.assert_allclose(curve[:, 0], curve[:, used] * (1 if terms == "global" else 4), rtol=1e-6)


class KilledError(Exception):
    """Ends a run where a signal would."""


@pytest.mark.parametrize("way", [{"features": "fp16"}, {"augment": True}])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tiny_network, tmp_path, way):
    def checkpoint(name: str) -> ResumableCheckpoint:
        return ResumableCheckpoint(tmp_path / name / "checkpoint.pt", {"seed": 111})

    def killed_in_epoch_3(engine: PromptTrainer) -> None:
        if engine.state.iteration == 2 * engine.state.epoch_length + 2:
            raise KilledError

    whole = run(tiny_network, data, tmp_path / "w", handlers=(checkpoint("whole"),), **way)
    killed = trainer_of(tiny_network, data, tmp_path / "k", handlers=(checkpoint("killed"),), **way)
    killed.add_event_handler(Events.ITERATION_COMPLETED, killed_in_epoch_3)
    with pytest.raises(KilledError):
        killed.run()
    resumed = trainer_of(tiny_network, data, tmp_path / "k", handlers=(checkpoint("killed"),), **way)
    resumed.run()
    assert [epoch["epoch"] for epoch in resumed.curve] == [1, 2, 3, 4, 5]
    assert (losses(resumed) == losses(whole)).all()
    assert same_prompts(resumed.network, whole.network)
    # and a short run that is prolonged
    run(tiny_network, data, tmp_path / "s", epochs=2, handlers=(checkpoint("short"),), **way)
    prolonged = run(tiny_network, data, tmp_path / "s", handlers=(checkpoint("short"),), **way)
    assert same_prompts(prolonged.network, whole.network)
    # and one that is done is not done again
    done = trainer_of(tiny_network, data, tmp_path / "k", handlers=(checkpoint("killed"),), **way)
    done.run()
    assert same_prompts(done.network, whole.network)
    assert len(done.curve) == EPOCHS


def test_a_checkpoint_of_another_run_is_refused(data, tiny_network, tmp_path):
    path = tmp_path / "checkpoint.pt"
    run(tiny_network, data, tmp_path, epochs=2, handlers=(ResumableCheckpoint(path, {"seed": 1}),))
    with pytest.raises(UsageError, match=r"E_RESUME: .*other options: seed 1, now 2 .*delete the file"):
        trainer_of(tiny_network, data, tmp_path, handlers=(ResumableCheckpoint(path, {"seed": 2}),))
    with pytest.raises(UsageError, match="has 2 epochs already, 1 are asked for"):
        trainer_of(tiny_network, data, tmp_path, epochs=1, handlers=(ResumableCheckpoint(path, {"seed": 1}),))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="E_RESUME: the checkpoint cannot be read"):
        trainer_of(tiny_network, data, tmp_path, handlers=(ResumableCheckpoint(path, {"seed": 1}),))


def test_results_are_prompts_a_report_and_pictures(data, tiny_network, tmp_path):
    options = {"seed": 111, "terms": "both"}
    out = tmp_path / "out"
    trainer = trainer_of(tiny_network, data, tmp_path, epochs=3, features="fp16")
    MapPictures(data, trainer.network, out / "maps", count=2, every=2).attach(trainer)
    TrainingReport(out, data, options, tmp_path).attach(trainer)
    trainer.run()
    prompts = torch.load(out / "model.pt", weights_only=True)
    assert list(prompts) == list(trainer.network.state_dict())
    tiny_network.load_state_dict(prompts)
    assert same_prompts(tiny_network, trainer.network)
    report = json.loads((out / "training.json").read_text())
    assert report["schema"] == "anomalyclip-training/1"
    assert report["options"] == options
    assert report["data"] == {"images": 10, "sets": {"folder": 10}, "sha256": data.sha256}
    assert [epoch["epoch"] for epoch in report["curve"]] == [1, 2, 3]
    assert str(tmp_path) not in json.dumps(report)
    pictures = sorted((out / "maps").iterdir())
    assert [path.name for path in pictures] == ["epoch_001.png", "epoch_002.png", "epoch_003.png"]
    with Image.open(pictures[0]) as picture:
        # two rows of two panels, 40 x 56 pixels each enlarged to a width of 384
        assert picture.size == (2 * 384 + 8, 2 * (274 + 8))
        left = np.asarray(picture)[:274, :384].reshape(-1, 3).astype(int)
    assert (np.abs(left - (0, 255, 255)).sum(axis=1) < 30).any()  # the outline of a lesion
    assert len(np.unique(left, axis=0)) > 50


def test_the_golden_problem_through_the_trainer(golden, tmp_path):
    case = rebuild(golden)
    labels, masks = case.expected["label"], case.expected["mask"]
    seed = 0  # under which the two samples keep their order for three epochs
    while any(np.random.default_rng((seed, epoch)).permutation(2)[0] for epoch in (1, 2, 3)):
        seed += 1

    class Two(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            mask = torch.tensor(masks[index]).float()[None]
            return {"image": case.images[index], "label": torch.tensor(int(labels[index])), "mask": mask}

    trainer = PromptTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=DataLoader(Two(), batch_sampler=GlobalBatches(2, 2, seed)),
        network=case.network,
        optimizer=torch.optim.Adam(learned(case.network), lr=1e-3, betas=(0.5, 0.999)),
        loss_function=PromptLoss(),
        inferer=PromptInferer(),
    )
    trainer.run()
    history = torch.tensor(losses(trainer))[:, [1, 2, 0]]
    case.assert_equal("loss_history", history)
    for index, prompt in enumerate(case.network.deep):
        expected = case.expected[f"after3.compound_prompts_text.{index}"]
        np.testing.assert_allclose(prompt.detach().numpy(), expected, atol=1e-5)
