"""Volume in, heatmap on the same grid out."""

from anomalyclip_monai.inferers.slice_anomaly import SliceAnomalyInferer

__all__ = ["SliceAnomalyInferer"]
