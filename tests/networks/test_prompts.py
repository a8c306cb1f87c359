from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from torch import nn
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks.prompts import encode_prompts, text_tower, tokenize_prompts

pytestmark = pytest.mark.usefixtures("one_thread")

START, END, DOT, X, OBJECT, DAMAGED = 49406, 49407, 269, 343, 14115, 13568
"""Token ids of CLIP's vocabulary."""

VISION = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=14, image_size=28)


def test_object_agnostic_prompts() -> None:
    tokens = tokenize_prompts(77, n_ctx=3)
    assert tokens.shape == (2, 77)
    assert tokens[0, :8].tolist() == [START, X, X, X, OBJECT, DOT, END, 0]
    assert tokens[1, :8].tolist() == [START, X, X, X, DAMAGED, OBJECT, DOT, END]


def test_a_named_object_takes_the_place_of_object() -> None:
    tokens = tokenize_prompts(16, n_ctx=1, object_name="brain")
    brain = open_clip.tokenizer.SimpleTokenizer().encode("brain")
    assert tokens[1].tolist()[:7] == [START, X, DAMAGED, *brain, DOT, END, 0]


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    assert tokenize_prompts(9, n_ctx=4)[1, -1] == END
    with pytest.raises(ValueError, match=r"n_ctx \(5\) with object 'object' needs 10 of 9 positions"):
        tokenize_prompts(9, n_ctx=5)


def _naive(clip: nn.Module, tokens: torch.Tensor, context: torch.Tensor, deep: list[torch.Tensor]) -> torch.Tensor:
    """All 77 positions, prompt by prompt, as the paper has it."""
    features = []
    for sentence, learned in zip(tokens, context, strict=True):
        x = clip.token_embedding(sentence).clone()
        x[1 : 1 + len(learned)] = learned
        x = (x + clip.positional_embedding).unsqueeze(0)
        for index, block in enumerate(clip.transformer.resblocks):
            if 1 <= index <= len(deep):
                x = x.clone()
                x[0, 1 : 1 + len(deep[index - 1])] = deep[index - 1]
            x = block(x, attn_mask=clip.attn_mask)
        end = sentence.tolist().index(END)
        features.append(clip.ln_final(x[0, end]) @ clip.text_projection)
    return F.normalize(torch.stack(features), dim=-1)


@pytest.mark.parametrize("depth", [1, 2, 3])
@torch.no_grad()
def test_text_features_equal_the_full_length_computation(tiny_clip: nn.Module, depth: int) -> None:
    random = torch.Generator().manual_seed(3)
    context = torch.randn(2, 4, 32, generator=random)
    deep = [torch.randn(2, 32, generator=random) for _ in range(depth - 1)]
    tokens = tokenize_prompts(77, n_ctx=4)
    found = encode_prompts(text_tower(tiny_clip), tokens, context, deep)
    torch.testing.assert_close(found, _naive(tiny_clip, tokens, context, deep), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2))
    # half precision of the deep prompts as published: near, and not the same
    rounded = encode_prompts(text_tower(tiny_clip), tokens, context, deep, fp16_prompts=True)
    expected = _naive(tiny_clip, tokens, context, [prompt.half().float() for prompt in deep])
    torch.testing.assert_close(rounded, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_untouched_embeddings_give_open_clips_own_text_feature(tiny_clip: nn.Module) -> None:
    tokens = tokenize_prompts(77, n_ctx=2)
    context = tiny_clip.token_embedding(tokens)[:, 1:3]
    found = encode_prompts(text_tower(tiny_clip), tokens, context, [])
    own = F.normalize(tiny_clip.encode_text(tokens), dim=-1)
    torch.testing.assert_close(found, own, atol=1e-6, rtol=0)


@torch.no_grad()
def test_text_tower_of_a_custom_text_clip() -> None:
    clip = open_clip.model.CustomTextCLIP(16, VISION, CLIPTextCfg(width=32, heads=2, layers=2)).eval()
    tokens = tokenize_prompts(77, n_ctx=2)
    context = clip.text.token_embedding(tokens)[:, 1:3]
    found = encode_prompts(text_tower(clip), tokens, context, [])
    torch.testing.assert_close(found, F.normalize(clip.encode_text(tokens), dim=-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({"vocab_size": 1000}, "its vocabulary has 1000 tokens, CLIP's has 49408"),
        ({"no_causal_mask": True}, "not causal"),
        ({"embed_cls": True}, "class token"),
        ({"pool_type": "last"}, "not read at the end token"),
        ({"proj_type": "none"}, "no projection"),
    ],
)
def test_refused_text_towers_with_their_reason(text: dict[str, object], reason: str) -> None:
    width = 16 if "proj_type" in text else 32
    clip = open_clip.model.CustomTextCLIP(16, VISION, CLIPTextCfg(width=width, heads=2, layers=1, **text))
    with pytest.raises(WeightsError, match=reason) as caught:
        text_tower(clip)
    assert caught.value.code == "E_BACKBONE"
