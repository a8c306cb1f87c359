"""Make the packed viewer of the report pages from npm's archive; needs npm.

    python tools/vendor_niivue.py            write anomalyclip_monai/outputs/report/niivue.js.gz
    python tools/vendor_niivue.py --check    write nothing; exit 1 where the file would change

To take another version, change ``PACKAGE`` and ``SHA256`` in ``anomalyclip_monai/outputs/report/niivue.py``, run this,
look at a report, and bring ``niivue.LICENSE`` up to date.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from anomalyclip_monai.outputs.report import niivue

TARGET = Path(niivue.__file__).with_name(niivue.PACKED)


def main() -> int:
    """Write or check; -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where the file would change")
    check = parser.parse_args().check
    script = script_at_npm()
    if TARGET.is_file() and gzip.decompress(TARGET.read_bytes()) == script:
        return 0
    print(f"{'stale' if check else 'written'}: {TARGET.name}")
    if not check:
        TARGET.write_bytes(gzip.compress(script, 9, mtime=0))
    return 1 if check else 0


def script_at_npm() -> bytes:
    """The script out of npm's archive of the named version.

    Raises:
        ValueError: it is not the one that was chosen.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", niivue.PACKAGE, "--silent", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as members:
            member = members.extractfile(niivue.FILE)
            assert member is not None
            script = member.read()
    digest = hashlib.sha256(script).hexdigest()
    if digest != niivue.SHA256:
        raise ValueError(f"{niivue.PACKAGE}: sha256 of {niivue.FILE} is {digest}, expected {niivue.SHA256}")
    return script


if __name__ == "__main__":
    sys.exit(main())
