"""Learning prompts on a frozen CLIP (AnomalyCLIP, section 3.4)."""

from anomalyclip_monai.engines.prompts.batches import GlobalBatches
from anomalyclip_monai.engines.prompts.checkpoint import ResumableCheckpoint
from anomalyclip_monai.engines.prompts.datasets import training_dataset
from anomalyclip_monai.engines.prompts.features import image_side_sha256
from anomalyclip_monai.engines.prompts.items import training_data
from anomalyclip_monai.engines.prompts.learn import learn_prompts
from anomalyclip_monai.engines.prompts.look import MapPictures
from anomalyclip_monai.engines.prompts.prediction import PromptInferer, fresh_prompts, learned
from anomalyclip_monai.engines.prompts.report import TrainingReport
from anomalyclip_monai.engines.prompts.trainer import PromptTrainer, batch_losses

__all__ = [
    "GlobalBatches",
    "MapPictures",
    "PromptInferer",
    "PromptTrainer",
    "ResumableCheckpoint",
    "TrainingReport",
    "batch_losses",
    "fresh_prompts",
    "image_side_sha256",
    "learn_prompts",
    "learned",
    "training_data",
    "training_dataset",
]
