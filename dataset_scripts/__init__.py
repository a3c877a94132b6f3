"""Posts of every supported dataset, with the same columns (`schema.features`)."""

from dataset_scripts.loading import join_content, load_posts, load_posts_with_report
from dataset_scripts.rationales.join import join_rationales
from dataset_scripts.reading.archives import ArchiveLimits
from dataset_scripts.reading.report import BuildReport
from dataset_scripts.schema import LABELS, PERSPECTIVES, features, rationale_column
from dataset_scripts.splits import content_hash, group_ids, split_hash, split_posts

__all__ = [
    "LABELS",
    "PERSPECTIVES",
    "ArchiveLimits",
    "BuildReport",
    "content_hash",
    "features",
    "group_ids",
    "join_content",
    "join_rationales",
    "load_posts",
    "load_posts_with_report",
    "rationale_column",
    "split_hash",
    "split_posts",
]
