"""What prompts are learned with."""

from anomalyclip_monai.losses.prompt_loss import PromptLoss, PromptPrediction, PromptTarget, focal_loss

__all__ = ["PromptLoss", "PromptPrediction", "PromptTarget", "focal_loss"]
