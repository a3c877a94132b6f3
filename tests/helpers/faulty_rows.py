"""Check of a download with one faulty row."""

import pytest

from dataset_scripts import load_posts, load_posts_with_report


def check_faulty_row(name, folder, reason, message, **options):
    """Assert that the row raises or is skipped and counted; return posts and report."""
    with pytest.raises(ValueError, match=message) as error:
        load_posts(name, folder, **options)
    assert 'on_error="skip"' in str(error.value)
    posts, report = load_posts_with_report(name, folder, on_error="skip", **options)
    assert report.skipped == {reason: 1}
    assert report.read == len(posts) + 1 + sum(report.dropped.values()) and report.kept == len(posts)
    return posts, report
