"""Hand-written sentences for the normal and the abnormal state, and a noun for every preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Sentences(NamedTuple):
    """What is said of either state; ``{object}`` stands for the noun."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]

    def about(self, noun: str) -> Sentences:
        """The sentences with a noun in the place of ``{object}``."""
        return Sentences(*(tuple(sentence.format(object=noun) for sentence in state) for state in self))


PLAIN = Sentences(("a photo of a normal {object}.",), ("a photo of an anomalous {object}.",))
"""One plain sentence for each state."""

FIXED = Sentences(("{object}.",), ("damaged {object}.",))
"""AnomalyCLIP's prompts without what is learned."""

NORMAL_STATES = (
    "a normal {object}",
    "a healthy {object}",
    "an intact {object}",
    "an ordinary {object} in good order",
    "the {object} of someone who is well",
    "the {object} as it ought to look",
    "the {object} with an even and regular structure",
    "the {object} with nothing to report",
)
ABNORMAL_STATES = (
    "an abnormal {object}",
    "a diseased {object}",
    "an injured {object}",
    "a visibly altered {object}",
    "the {object} of someone who is ill",
    "the {object} with a lesion",
    "the {object} with a spot that does not belong there",
    "the {object} with a finding to report",
)
"""Words for the two states. An article is theirs, so that no noun meets the wrong one."""

TEMPLATES = (
    "{state}.",
    "a picture of {state}.",
    "a scan showing {state}.",
    "a view of {state} from close by.",
    "one slice through {state}.",
    "a still from a video of {state}.",
    "a grey picture of {state}.",
    "a colour picture of {state}.",
    "a blurred and noisy picture of {state}.",
    "an example of {state} for teaching.",
)
"""What is said around the words for a state."""

ENSEMBLE = Sentences(
    *(
        tuple(template.format(state=state) for state in states for template in TEMPLATES)
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    )
)
"""Every template around every state: 80 sentences for each of the two."""

NOUNS: Mapping[str, str] = {
    "mr_brain": "brain",
    "mr_body": "body",
    "ct_head": "head",
    "ct_abdomen": "abdomen",
    "ct_chest": "lung",
    "xray_chest": "chest",
    "colonoscopy": "colon",
    "ultrasound": "tissue",
    "skin": "skin",
    "photo": "object",
}
"""Preset -> what its images show, for prompts that name their object. Of photos nothing is known."""
