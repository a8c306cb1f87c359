"""Results and the files they become."""

from anomalyclip_monai.outputs.result import Result
from anomalyclip_monai.outputs.save import SaveImageResultd

__all__ = ["Result", "SaveImageResultd"]
