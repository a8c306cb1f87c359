"""The viewer of volumes inside a report: NiiVue (https://niivue.com), as npm has it, packed.

``python tools/vendor_niivue.py`` makes ``niivue.js.gz`` again from npm's archive; its licence is ``niivue.LICENSE``.
"""

from __future__ import annotations

from importlib import resources

PACKAGE = "@niivue/niivue@0.69.0"
"""Name and version at npm."""

FILE = "package/dist/niivue.umd.js"
"""In npm's archive: the one file that sets ``window.niivue`` and needs nothing else."""

SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of that file, unpacked."""

PACKED = "niivue.js.gz"
LICENCE = "niivue.LICENSE"


def packed_niivue() -> bytes:
    """The script, gzipped."""
    return resources.files(__package__).joinpath(PACKED).read_bytes()
