"""The text side: object-agnostic prompts with learned context and deep prompts (AnomalyCLIP, section 3.2)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError

NORMAL, ABNORMAL = 0, 1
"""Row of each state in text features, column in probabilities."""

STATES = ("{object}.", "damaged {object}.")
"""What follows the learned context of the normal and of the abnormal prompt."""

CONTEXT_PLACEHOLDER = "X"
"""One token of the vocabulary; its embedding is replaced by a learned context vector."""


def tokenize_prompts(context_length: int, n_ctx: int, object_name: str = "object") -> Tensor:
    """-> (2, context_length) token ids of the normal and the abnormal prompt, placeholders in front.

    Args:
        context_length: positions of the text tower.
        n_ctx: number of learned context vectors.
        object_name: ``object`` is the object-agnostic prompt of the paper; a name gives the ablation.

    Raises:
        ValueError: the prompt does not fit into ``context_length``.
    """
    context = [CONTEXT_PLACEHOLDER] * n_ctx
    sentences = [" ".join([*context, state.format(object=object_name)]) for state in STATES]
    return _tokenize(sentences, context_length, f"n_ctx ({n_ctx}) with object {object_name!r}")


def tokenize_sentences(sentences: Sequence[str], context_length: int) -> Tensor:
    """-> (len(sentences), context_length) token ids.

    Raises:
        ValueError: a sentence does not fit into ``context_length``.
    """
    return _tokenize(sentences, context_length, f"the longest sentence, {max(sentences, key=len)!r},")


def _tokenize(sentences: Sequence[str], context_length: int, what: str) -> Tensor:
    tokenizer = _tokenizer()
    needed = max(len(tokenizer.encode(sentence)) for sentence in sentences) + 2
    if needed > context_length:
        raise ValueError(f"{what} needs {needed} of {context_length} positions")
    return tokenizer(sentences, context_length)


@functools.cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()  # reads CLIP's vocabulary, a third of a second


class TextTower(NamedTuple):
    """The parts of a CLIP's text side, wherever its class keeps them."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    blocks: Sequence[nn.Module]
    ln_final: nn.Module
    projection: Tensor | nn.Linear
    mask: Tensor

    @property
    def width(self) -> int:
        """Width of the token embedding."""
        return int(self.token_embedding.embedding_dim)

    @property
    def context_length(self) -> int:
        """Number of positions."""
        return int(self.positional_embedding.shape[0])


def text_tower(clip: nn.Module) -> TextTower:
    """The text tower of an open_clip ``CLIP`` or ``CustomTextCLIP``.

    Raises:
        WeightsError: the tower is not a causal CLIP text transformer, with the reason.
    """
    text = cast(Any, getattr(clip, "text", clip))
    reason = None
    if hasattr(clip, "text") and not isinstance(text, TextTransformer):
        reason = f"its text tower is a {type(text).__name__}, not open_clip's TextTransformer"
    elif getattr(text, "attn_mask", None) is None:
        reason = "its text tower is not causal"
    elif getattr(text, "cls_emb", None) is not None:
        reason = "its text feature is read from a class token, not from the end token"
    elif getattr(text, "text_pool_type", getattr(text, "pool_type", "argmax")) != "argmax":
        reason = "its text feature is not read at the end token"
    elif text.text_projection is None:
        reason = "its text tower has no projection into the joint space"
    elif (vocabulary := int(text.token_embedding.num_embeddings)) < 49408:
        reason = f"its vocabulary has {vocabulary} tokens, CLIP's has 49408"
    if reason:
        raise WeightsError("E_BACKBONE", f"this CLIP cannot take learned prompts: {reason}", None, "choose another")
    return TextTower(
        text.token_embedding,
        text.positional_embedding,
        text.transformer.resblocks,
        text.ln_final,
        text.text_projection,
        text.attn_mask,
    )


def encode_prompts(
    tower: TextTower, tokens: Tensor, context: Tensor, deep: Sequence[Tensor], *, fp16_prompts: bool = False
) -> Tensor:
    """-> (N, D) normalised text features, one row per prompt.

    Args:
        tower: the frozen text side.
        tokens: (N, L) ids from :func:`tokenize_prompts` or :func:`tokenize_sentences`.
        context: (N, n_ctx, width) learned vectors, placed after the start token; n_ctx 0 leaves plain sentences.
        deep: for block 2, 3, ... the (t_n_ctx, width) vectors that replace the tokens after the start token.
        fp16_prompts: round the deep prompts to half precision, in the graph, as the published code does.
    """
    end = tokens.argmax(dim=-1)
    length = int(end.max()) + 1  # the tower is causal: nothing behind the end token is ever read
    embedded = tower.token_embedding(tokens[:, :length])
    after_context = 1 + context.shape[1]
    x = torch.cat([embedded[:, :1], context.to(embedded.dtype), embedded[:, after_context:]], dim=1)
    x = x + tower.positional_embedding[:length].to(x.dtype)
    mask = tower.mask[:length, :length].to(x.dtype)
    for index, block in enumerate(tower.blocks):
        if 1 <= index <= len(deep):
            prompt = deep[index - 1].expand(len(x), -1, -1)
            # Rounded after the expansion: so the gradients of both prompts are rounded before they are added.
            prompt = (prompt.half() if fp16_prompts else prompt).to(x.dtype)
            x = torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
        x = block(x, attn_mask=mask)
    x = tower.ln_final(x)[torch.arange(len(x), device=x.device), end]
    x = tower.projection(x) if isinstance(tower.projection, nn.Linear) else x @ tower.projection
    return F.normalize(x.float(), dim=-1)


@contextmanager
def as_constant(device: torch.device) -> Iterator[None]:
    """Tensors made inside are ordinary constants in full precision, in whatever mode the caller is."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield
