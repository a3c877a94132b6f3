"""Explanations: effect of words, image regions, rationales and modalities on a prediction."""

from mpt_sentiment.explaining.attribution import integrated_gradients, leave_one_out
from mpt_sentiment.explaining.explanation import Explanation, Explanations
from mpt_sentiment.explaining.faithfulness import Faithfulness, deletion_areas, summarize
from mpt_sentiment.explaining.post import KINDS, PostParts, read_post
from mpt_sentiment.explaining.run import METHODS, explain, explain_post

__all__ = [
    "KINDS",
    "METHODS",
    "Explanation",
    "Explanations",
    "Faithfulness",
    "PostParts",
    "deletion_areas",
    "explain",
    "explain_post",
    "integrated_gradients",
    "leave_one_out",
    "read_post",
    "summarize",
]
