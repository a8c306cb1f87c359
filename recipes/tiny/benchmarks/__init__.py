"""The measurements by which the embedded model is judged, each run by ``python -m``."""
