"""Audit of posts: duplicates, leaks between splits, label conflicts, faulty content."""

from dataset_scripts.audit.audit import audit_posts
from dataset_scripts.audit.report import AuditReport

__all__ = ["AuditReport", "audit_posts"]
