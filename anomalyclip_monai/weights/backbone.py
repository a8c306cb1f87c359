"""The frozen CLIP: from files of a bundle, of open_clip or of a published model; read, check, convert, load.

Only OpenAI's own archive may go through ``torch.jit.load``, which can run what a file says, and only once its hash is
that of OpenAI's address. Everything else is read as tensors and nothing more.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.networks import clip_from_state_dict, named_config
from anomalyclip_monai.networks.checkpoints import floating_type, with_text_side
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights import store
from anomalyclip_monai.weights.published import MODELS, PublishedModel
from anomalyclip_monai.weights.reading import read_description, read_state_dict

AUTO = "auto"
"""The precision that the machine is made for."""

_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")


def load_backbone(
    weights: PathLike | None = None,
    config: PathLike | None = None,
    *,
    text: PathLike | None = None,
    trunk: PathLike | None = None,
    pretrained: str | None = None,
    precision: str = "fp32",
    model: str | PublishedModel | None = None,
) -> nn.Module:
    """Build a CLIP from a weights file and its description.

    The file is mapped into memory. Weights that are stored in the wanted precision are used from there, others are
    converted one by one: no second copy of a tower is made.

    Args:
        weights: ``.safetensors``, or a ``torch.save`` file of tensors (read with ``weights_only``); of a published
            model OpenAI's own archive as well, and by default the file in ``ANOMALYCLIP_HOME``.
        config: name of an open_clip model, whose activation is corrected as in
            :func:`~anomalyclip_monai.networks.named_config`; or a JSON file in the form of open_clip's
            ``open_clip_config.json``, by default the one beside the weights. A section ``stem`` replaces
            ``visual.conv1`` by a :class:`~anomalyclip_monai.networks.stem.ConvolutionalStem`, whose batch norms are
            folded in fp32; a section ``neck`` adds a :class:`~anomalyclip_monai.networks.neck.TokenNeck`.
        text: a second file, whose text side takes the place of that of ``weights``, which may have the image side only.
        trunk: a third file, with what ``weights`` lacks of the image side: a frozen backbone that is kept as it came.
        pretrained: open_clip's tag of these weights, where ``config`` is a name.
        precision: of the tower in memory: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for :func:`native_precision`.
        model: name or description of a published model, which says what ``config`` says of others. Its weights must
            not have changed since their first load.

    Raises:
        WeightsError: a file is missing or damaged, a key does not match (``E_WEIGHTS``, ``E_BACKBONE``), or a
            published model's weights are not those of the first load (``E_WEIGHTS_CHANGED``).
        UsageError: there is no such precision (``E_PRECISION``).
    """
    dtype = floating_type(native_precision() if precision == AUTO else precision)
    if model is not None:
        published = MODELS[model] if isinstance(model, str) else model
        path = Path(weights) if weights else store.backbone(published.name)
        store.verify(path)
        state, description = read_backbone(path, published), _description(published)
    else:
        if weights is None:
            raise WeightsError("E_WEIGHTS", "no file of weights was named", None, "give weights or a published model")
        path = Path(weights)
        state = read_state_dict(path)
        if trunk is not None:
            state = {**read_state_dict(trunk), **state}
        if text is not None:
            state = with_text_side(state, read_state_dict(text))
        if isinstance(config, str) and open_clip.get_model_config(config) is not None:
            description = named_config(config, pretrained)
        else:
            description = read_description(Path(config) if config else path.with_name("open_clip_config.json"))
    try:
        clip: Any = clip_from_state_dict(state, description, dtype=dtype)
    except WeightsError as error:
        raise WeightsError(error.code, error.what, path, error.todo) from error
    if description.get("stem") and dtype == torch.float32:
        clip.visual.conv1.fold()
    return clip


def native_precision() -> str:
    """``bf16`` where there are matrix units for it, in the GPU or, without one, in the processor; else ``fp32``."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def read_backbone(path: Path, published: PublishedModel) -> dict[str, Tensor]:
    """Tensors by name of ``.safetensors``, a plain state dict, or OpenAI's own archive, in the types of the file.

    Raises:
        WeightsError: the file is missing or damaged, or an archive that is not OpenAI's (``E_WEIGHTS``).
    """
    return _read_archive(path, published) if is_archive(path) else read_state_dict(path)


def check_backbone(path: Path, published: PublishedModel) -> None:
    """Compare names and sizes in a file with the model's; of ``.safetensors`` no weight is read for it.

    Raises:
        WeightsError: the file is damaged, unsafe (``E_WEIGHTS``) or of another network (``E_BACKBONE``).
    """
    if path.suffix != ".safetensors":
        _check_fit(read_backbone(path, published), path, published)
        return
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shapes = {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        message = f"weights cannot be read ({error}), the file is damaged or of another kind"
        raise WeightsError("E_WEIGHTS", message, path, "get the file again") from error
    _check_fit(shapes, path, published)


def convert_backbone(source: Path, target: Path, published: PublishedModel, dtype: torch.dtype | None = None) -> None:
    """Write a backbone as ``.safetensors``, holding one copy of it in memory and a second one of a single tensor.

    Args:
        source: ``.safetensors``, a plain state dict, or OpenAI's own archive.
        target: appears whole or not at all.
        published: the model that it must fit.
        dtype: floating point type on disk; by default that of each tensor in the source.

    Raises:
        WeightsError: the source is damaged, unsafe (``E_WEIGHTS``) or of another network (``E_BACKBONE``).
        OutputError: the target cannot be written (``E_WRITE``).
    """
    if source.suffix == ".safetensors":
        check_backbone(source, published)
        tensors = _one_by_one(source)
    else:
        state = read_backbone(source, published)
        _check_fit(state, source, published)
        tensors = _emptying(state)
    converted = {
        key: (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous()
        for key, value in tensors
        if key not in _OPENAI_SCALARS
    }
    with whole_file(target) as temporary:
        safetensors.torch.save_file(converted, temporary, metadata={"format": "pt"})


def is_archive(path: Path) -> bool:
    """Whether this is a TorchScript archive, which holds code beside its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def is_half(path: Path) -> bool:
    """Whether every weight of a ``.safetensors`` file has 16 bits."""
    with safetensors.safe_open(path, framework="pt") as file:
        return all(file.get_slice(key).get_dtype() in ("F16", "BF16") for key in file.keys())  # noqa: SIM118


def _read_archive(path: Path, published: PublishedModel) -> dict[str, Tensor]:
    digest = resources.sha256(path)
    known = {file.sha256: file for file in published.backbone if file.name.endswith(".pt")}
    if digest not in known:
        what = f"this archive holds code and is not OpenAI's own (sha256 {digest[:12]}), so it is not opened"
        address = next((file.address for file in known.values()), "its publisher")
        raise WeightsError("E_WEIGHTS", what, path, f"get it from {address}, or give a state dict")
    with warnings.catch_warnings():
        # Deprecated in favour of formats in which this archive was never published.
        warnings.filterwarnings("ignore", ".*torch.jit.load.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.load.*", DeprecationWarning)
        module: Any = torch.jit.load(path, map_location="cpu")
    return {key: value.detach() for key, value in module.state_dict().items()}


def _description(published: PublishedModel) -> dict[str, Any]:
    if isinstance(published.architecture, str):
        return named_config(published.architecture, "openai")
    return dict(published.architecture)


def _check_fit(state: dict[str, Tensor], path: Path, published: PublishedModel) -> None:
    try:
        clip_from_state_dict({key: value.to("meta") for key, value in state.items()}, _description(published))
    except WeightsError as error:
        raise WeightsError(error.code, error.what, path, f"give the weights of {published.name}") from error


def _one_by_one(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            yield key, file.get_tensor(key)


def _emptying(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    while state:
        yield state.popitem()
