"""``anomalyclip info``: versions, models and presets."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import TYPE_CHECKING

from anomalyclip_monai import __version__, resources
from anomalyclip_monai.cli.console import say
from anomalyclip_monai.cli.exits import EXIT_DONE
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.text import printable
from anomalyclip_monai.weights.bundle import fingerprint

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    info = commands.add_parser("info", help="versions, models and presets", description=run.__doc__)
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print versions, models with their weights, presets and folders."""
    names = ("monai", "torch", "open_clip_torch", "nibabel", "pydicom")
    try:
        home = str(resources.home())
    except UsageError as error:
        home = str(error)
    models: dict[str, dict[str, str]] = {}
    for name in resources.bundles():
        root = resources.bundle_root(name)
        models[name] = {"folder": str(root)}
        with contextlib.suppress(UsageError):  # without a home folder nothing was downloaded
            models[name] |= fingerprint(root)
    versions = {name: resources.installed_version(name) for name in names}
    content = {
        "anomalyclip-monai": __version__,
        "versions": versions,
        "models": models,
        "presets": resources.presets(),
        "home": home,
    }
    if arguments.json:
        for line in json.dumps(content, indent=2).splitlines():
            say(line)
        return EXIT_DONE
    say(f"anomalyclip-monai {__version__}")
    say("  ".join(f"{name} {version}" for name, version in versions.items()))
    for name, model in models.items():
        say(f"model {name.removeprefix(resources.BUNDLE_PREFIX)}: {printable(model['folder'])}")
        hashes = {"weights_sha256": "missing", "prompts_sha256": "missing", **model}
        for key in hashes:
            if key.endswith("_sha256"):
                say(f"  {key} {hashes[key]}")
    say(f"presets: {', '.join(resources.presets())}")
    say(f"home: {printable(home)}")
    return EXIT_DONE
