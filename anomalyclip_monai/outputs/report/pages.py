"""Whole HTML pages out of Jinja2's templates: what they say is escaped, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from anomalyclip_monai.outputs.report.tables import unbroken
from anomalyclip_monai.text import printable

RESEARCH_USE = "Research use only. Not a medical device, not for clinical decisions."

START = "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
"""How every page of ours begins."""

JPEG_QUALITY = 92
"""Of pictures of cases in the report of an evaluation; ``cases.png`` has them without loss."""

_HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """-> a page from ``templates/``; whatever is no markup of ours becomes harmless text on one line."""
    return _environment().get_template(template).render(values)


def asset(name: str) -> Markup:
    """A style or a script of ours, to stand inside a page."""
    return Markup(resources.files(__package__).joinpath(name).read_text("utf-8"))


def policy_source(script: str | bytes) -> str:
    """-> what a page's policy says to let a script run that stands inside it: its hash."""
    content = script.encode() if isinstance(script, str) else script
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


def data_uri(data: bytes, kind: str) -> str:
    """A picture as an address that holds it, for example ``data:image/png;base64,...``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def jpeg(picture: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def begins_as(path: Path, start: str) -> bool:
    """Whether a file is a page of ours that begins in this way."""
    try:
        if not path.is_file():
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(start.encode()) and RESEARCH_USE.encode() in content


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"START": Markup(START), "RESEARCH_USE": RESEARCH_USE, "asset": asset}
    environment.filters |= {"policy_source": policy_source, "data_uri": data_uri, "jpeg": jpeg, "unbroken": unbroken}
    return environment


def _printable(value: Any) -> Any:
    """Texts on one line without characters that no reader sees, markup and undefined values as they are."""
    return printable(value) if type(value) is str else value
