"""``anomalyclip serve``: a MONAI Label server for 3D Slicer and OHIF."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from anomalyclip_monai.cli.console import add_options, add_quiet, given_options, model_options, say
from anomalyclip_monai.cli.exits import EXIT_DONE
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.options import CaseOptions, ModelOptions, ServeOptions

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    serve = commands.add_parser("serve", help="answer 3D Slicer and OHIF through MONAI Label", description=run.__doc__)
    serve.add_argument("studies", metavar="STUDIES", help="folder of images, or http(s) address of a DICOMweb server")
    for options in (ModelOptions, CaseOptions, ServeOptions):
        add_options(serve, options, "serve")
    add_quiet(serve)
    serve.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve the images of a folder, or of a DICOMweb server, to clients of MONAI Label until Ctrl-C.

    It prints its address, where a work list begins with the most suspicious case, and what it writes where.
    """
    model, case = model_options(arguments), given_options(arguments, CaseOptions)
    options = given_options(arguments, ServeOptions)
    if not arguments.studies or "\0" in arguments.studies:
        raise UsageError("E_USAGE", "the studies have no name", None, "give a folder or an address")
    from anomalyclip_monai.label import check_installed

    check_installed()
    from anomalyclip_monai.label.server import serve

    serve(arguments.studies, model, case, options, say)
    return EXIT_DONE
