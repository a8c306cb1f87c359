"""State dicts in and out: CLIP backbones in OpenAI's or open_clip's format, and the authors' prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from torch import Tensor, nn

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.networks.neck import TokenNeck
from anomalyclip_monai.networks.stem import ConvolutionalStem
from anomalyclip_monai.networks.towers import vision_tower

logger = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Floating point types of a tower in memory, by name."""

IMAGE_SIDE = "visual."
"""Begins the names of a CLIP's tensors that see the image."""

NECK = f"{IMAGE_SIDE}neck."
"""Begins the names of the tensors of a learned neck."""

_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
"""Scalars that only OpenAI's own archives carry beside the weights."""


def with_text_side(image: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image side of one CLIP with the text side of another, both under open_clip's names."""
    return {
        **{key: value for key, value in text.items() if not key.startswith(IMAGE_SIDE)},
        **{key: value for key, value in image.items() if key.startswith(IMAGE_SIDE)},
    }


def floating_type(precision: str) -> torch.dtype:
    """The floating point type that a name in :data:`PRECISIONS` stands for.

    Raises:
        UsageError: there is no such precision (``E_PRECISION``).
    """
    if precision not in PRECISIONS:
        raise UsageError("E_PRECISION", f"no precision {precision!r}", None, f"choose from: {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def clip_from_state_dict(
    state_dict: StateDict,
    config: Mapping[str, Any] | None = None,
    *,
    quick_gelu: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build an open_clip ``CLIP`` and load weights into it with every key matched.

    Args:
        state_dict: keys as in OpenAI's CLIP (``visual.conv1.weight``, ``transformer.resblocks.0...``), which
            open_clip shares, or with the text tower under ``text.`` as in open_clip's ``CustomTextCLIP``.
            A ``module.`` prefix and OpenAI's scalar entries are dropped.
        config: ``{"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}`` as in open_clip's model files, or with
            these under ``model_cfg``, and optionally a ``stem`` in the place of ``visual.conv1`` and a ``neck``,
            which becomes ``visual.neck``: arguments of :class:`ConvolutionalStem` and :class:`TokenNeck`. Without it
            sizes are read off the tensors, heads by OpenAI's rule (width / 64).
        quick_gelu: the activation, over what ``config`` says. Without ``config`` it must be given, except for
            OpenAI's own archives: weights do not show it, and the wrong one runs without an error.
        dtype: floating point type of the tower in memory. Beside a neck it is that of the frozen image side alone:
            neck and text side cost little, and stay in float32.

    Raises:
        WeightsError: keys or sizes do not match (``E_BACKBONE``), or the activation is unknown.
    """
    state = {
        key.removeprefix("module.").replace("text.", "", 1)
        if key.startswith(("module.text.", "text."))
        else key.removeprefix("module."): value
        for key, value in state_dict.items()
    }
    from_openai = any(key in state for key in _OPENAI_MARKS)
    for key in _OPENAI_MARKS:
        state.pop(key, None)
    if config is None:
        if quick_gelu is None and not from_openai:
            raise WeightsError(
                "E_BACKBONE",
                "the activation of this CLIP is unknown",
                None,
                "give a config, or quick_gelu=True or False",
            )
        config = config_from_shapes(state)
    if quick_gelu is None and from_openai:
        quick_gelu = True
    clip: Any = empty_clip(config, quick_gelu=quick_gelu)
    if stem := config.get("stem"):
        clip.visual.conv1 = ConvolutionalStem(**stem).to_empty(device="cpu")
    neck = config.get("neck")
    if neck:
        with torch.device("meta"):
            width = vision_tower(clip.visual).width
            clip.visual.neck = TokenNeck(**neck, width=width, embed_dim=clip.text_projection.shape[-1])
    types = {key: torch.float32 if neck and not _is_frozen_image_side(key) else dtype for key in state}
    _load_every_key(clip, {key: _cast(value, types[key]) for key, value in state.items()})
    return clip.eval().requires_grad_(False)


def empty_clip(config: Mapping[str, Any], *, quick_gelu: bool | None = None) -> nn.Module:
    """An open_clip ``CLIP`` whose weights have sizes and no memory; what it computes for itself has values.

    Args:
        config: see :func:`clip_from_state_dict`.
        quick_gelu: the activation, over what ``config`` says.

    Raises:
        WeightsError: no prompts can be learned for such a text tower (``E_BACKBONE``).
    """
    model = config.get("model_cfg", config)
    vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
    if reason := _why_no_prompts(model):
        raise WeightsError("E_BACKBONE", f"this CLIP cannot take learned prompts: {reason}", None, "choose another")
    activation = bool(model.get("quick_gelu", False)) if quick_gelu is None else quick_gelu
    with torch.device("meta"):
        clip = CLIP(model["embed_dim"], CLIPVisionCfg(**vision), CLIPTextCfg(**text), quick_gelu=activation)
    # What is computed and not stored has no values on the meta device: the causal mask, timm's tables of positions.
    if clip.attn_mask is not None:
        clip.attn_mask = torch.full_like(clip.attn_mask, float("-inf"), device="cpu").triu_(1)
    for module in clip.visual.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            for name in module._non_persistent_buffers_set:
                if (buffer := getattr(module, name)) is not None:
                    setattr(module, name, torch.empty_like(buffer, device="cpu"))
            module.init_non_persistent_buffers()
    return clip


def _why_no_prompts(model: Mapping[str, Any]) -> str | None:
    text = model["text_cfg"]
    if hub := text.get("hf_model_name"):
        return f"its text tower {hub!r} and that tower's vocabulary come from a hub"
    if hub := text.get("hf_tokenizer_name"):
        return f"its vocabulary {hub!r} comes from a hub and is not CLIP's"
    if "multimodal_cfg" in model:
        return "it is a CoCa, whose text feature is read from a class token"
    return None


def config_from_shapes(state: StateDict) -> dict[str, Any]:
    """Sizes of an OpenAI-format CLIP read off its tensors, heads by OpenAI's rule (width / 64).

    Raises:
        WeightsError: this is not the state dict of a CLIP with a vision transformer (``E_BACKBONE``).
    """
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        text_width = state["ln_final.weight"].shape[0]
        return {
            "embed_dim": state["text_projection"].shape[1],
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": grid * patch,
                "patch_size": patch,
                "width": width,
                "head_width": 64,
                "layers": _count_blocks(state, "visual.transformer.resblocks."),
            },
            "text_cfg": {
                "context_length": state["positional_embedding"].shape[0],
                "vocab_size": state["token_embedding.weight"].shape[0],
                "width": text_width,
                "heads": text_width // 64,
                "layers": _count_blocks(state, "transformer.resblocks."),
            },
        }
    except (KeyError, ValueError) as error:
        raise WeightsError(
            "E_BACKBONE", f"not the state dict of a CLIP with a vision transformer ({error})", None, "give a ViT CLIP"
        ) from error


def named_config(name: str, pretrained: str | None = None) -> dict[str, Any]:
    """open_clip's description of a model, with the activation that its published weights were trained with.

    ``ViT-L-14-336`` describes the wrong activation for OpenAI's weights; open_clip only warns and runs. Here the
    registry of weights decides: of the given tag, or, for weights from a file, where all tags of a name agree.

    Args:
        name: model name of open_clip, such as ``ViT-L-14-336`` or ``ViT-B-16-quickgelu``.
        pretrained: tag of published weights, such as ``openai``.

    Raises:
        WeightsError: open_clip knows no such model or tag (``E_BACKBONE``).
    """
    config = open_clip.get_model_config(name)
    if config is None:
        raise WeightsError("E_BACKBONE", f"open_clip knows no model {name!r}", None, "see open_clip.list_models()")
    tags = [pretrained] if pretrained else list_pretrained_tags_by_model(name)
    entries = [get_pretrained_cfg(name, tag) for tag in tags]
    if pretrained and not entries[0]:
        known = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise WeightsError("E_BACKBONE", f"{name} has no weights {pretrained!r}", None, f"known: {known}")
    activations = {bool(entry.get("quick_gelu", False)) for entry in entries}
    if len(activations) == 1 and (published := activations.pop()) != bool(config.get("quick_gelu", False)):
        logger.info("%s: activation corrected to that of its published weights, quick_gelu=%s", name, published)
        config["quick_gelu"] = published
    return dict(config)


def prompts_from_authors(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' prompt state dict -> the prompts of :class:`AnomalyCLIP`, in float32.

    ``ctx_pos`` and ``ctx_neg`` (1, 1, n_ctx, width) become ``ctx`` (2, n_ctx, width), normal first;
    ``compound_prompts_text.i`` becomes ``deep.i``. Unused projections and token buffers are left out.

    Args:
        state_dict: the dict itself or the ``{"prompt_learner": dict}`` that the authors save.

    Raises:
        WeightsError: these are not the authors' prompts (``E_PROMPTS``).
    """
    state = state_dict.get("prompt_learner", state_dict)
    try:
        ctx = torch.stack(
            [state[f"ctx_{side}"].float().reshape(state["ctx_pos"].shape[-2:]) for side in ("pos", "neg")]
        )
        depth = sum(key.startswith("compound_prompts_text.") for key in state)
        deep = {f"deep.{i}": state[f"compound_prompts_text.{i}"].float() for i in range(depth)}
    except (KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            "E_PROMPTS", f"not a prompt checkpoint of the authors ({error})", None, "give their epoch_15.pth"
        ) from error
    return {"ctx": ctx, **deep}


def _load_every_key(clip: nn.Module, state: dict[str, Tensor]) -> None:
    mismatch = describe_mismatch(clip.state_dict(), state)
    if mismatch:
        raise WeightsError(
            "E_BACKBONE",
            f"weights and description of the backbone do not match: {mismatch}",
            None,
            "use the description that belongs to the weights",
        )
    clip.load_state_dict(state, assign=True)


def _is_frozen_image_side(key: str) -> bool:
    return key.startswith(IMAGE_SIDE) and not key.startswith(NECK)


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _count_blocks(state: StateDict, prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
