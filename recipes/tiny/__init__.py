"""The embedded model: real and synthetic lesions, and the training of the bundle ``anomalyclip_tiny``.

From files to weights: :mod:`sources` reads the training data, :mod:`anatomy` shows a healthy picture in another
contrast, :mod:`lesions` puts lesions into it, :mod:`distractors` what only looks like one, :mod:`crops` draws all that
from a seed, :mod:`objective` compares maps with masks, :mod:`training` runs.
"""
