"""Go on after a kill as if nothing had happened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events

from anomalyclip_monai.engines.prompts.trainer import PromptTrainer
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.types import PathLike

logger = logging.getLogger(__name__)


class ResumableCheckpoint:
    """Handler that saves prompts, optimiser and curve after each epoch, and starts from them where they are.

    One file, replaced as a whole. MONAI's ``CheckpointSaver`` removes the last file before it writes the next in
    place: a kill at that moment would lose all.

    Args:
        path: the file.
        options: what the result depends on. A file of a run with others is refused.
    """

    def __init__(self, path: PathLike, options: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.options = {key: str(value) for key, value in options.items()}

    def attach(self, engine: PromptTrainer) -> None:
        """Load when training starts, save when an epoch has ended.

        Raises:
            UsageError: the file belongs to a run with other options, or cannot be read (``E_RESUME``).
        """
        saved = self._read(engine) if self.path.is_file() else None
        engine.add_event_handler(Events.STARTED, self.load, saved)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: PromptTrainer, saved: Mapping[str, Any] | None) -> None:
        """Set ``engine`` to where the file left off."""
        if saved is None:
            return
        engine.network.load_state_dict(saved["prompts"])
        engine.optimizer.load_state_dict(saved["optimizer"])
        engine.curve[:] = saved["curve"]
        engine.state.epoch = len(engine.curve)
        engine.state.iteration = len(engine.curve) * engine.state.epoch_length
        logger.info("going on after epoch %d", len(engine.curve))

    def save(self, engine: PromptTrainer) -> None:
        """Write the file, on the first process."""
        if idist.get_rank() > 0:
            return
        content = {
            "options": self.options,
            "prompts": engine.network.state_dict(),
            "optimizer": engine.optimizer.state_dict(),
            "curve": engine.curve,
        }
        with whole_file(self.path) as temporary:
            torch.save(content, temporary)

    def _read(self, engine: PromptTrainer) -> Mapping[str, Any]:
        way_out = "choose another output folder, or delete the file to start anew"
        try:
            saved: Mapping[str, Any] = torch.load(self.path, map_location=engine.state.device, weights_only=True)
            options, epochs = saved["options"], len(saved["curve"])
        except Exception as error:  # whatever a damaged file makes torch raise
            raise UsageError("E_RESUME", "the checkpoint cannot be read", self.path, way_out) from error
        differ = [
            f"{key} {options.get(key)}, now {value}" for key, value in self.options.items() if options.get(key) != value
        ]
        if differ:
            what = f"the folder holds a run with other options: {'; '.join(differ)}"
            raise UsageError("E_RESUME", what, self.path, way_out)
        if epochs > engine.state.max_epochs:
            what = f"the run has {epochs} epochs already, {engine.state.max_epochs} are asked for"
            raise UsageError("E_RESUME", what, self.path, way_out)
        return saved
