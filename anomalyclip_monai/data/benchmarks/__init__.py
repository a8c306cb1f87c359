"""Benchmark data sets in the layouts in which their authors publish them."""

from anomalyclip_monai.data.benchmarks.finding import find_all, find_samples
from anomalyclip_monai.data.benchmarks.layouts import LAYOUTS, Layout
from anomalyclip_monai.data.benchmarks.masks import Truth, read_mask, read_truth, squash_mask
from anomalyclip_monai.data.benchmarks.sample import Sample

__all__ = ["LAYOUTS", "Layout", "Sample", "Truth", "find_all", "find_samples", "read_mask", "read_truth", "squash_mask"]
