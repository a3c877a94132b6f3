"""Hash of the content of posts, which identifies a run."""

import hashlib
import json

from datasets import DatasetDict, Image

from dataset_scripts.reading.images import image_digest


def content_hash(splits: DatasetDict) -> str:
    """Hash everything that training reads to 16 hex digits.

    These are, for each split and post in order: id, label, text, `rationale_*` columns and the bytes of the image.
    Paths, cache files and the storage of the rows have no effect. Rows are read in small batches.

    Raises:
        ValueError: an image file of the posts cannot be read.
    """
    digest = hashlib.sha256()
    for name, posts in splits.items():
        columns = [name for name in ("id", "label", "text") if name in posts.column_names]
        columns += sorted(column for column in posts.column_names if column.startswith("rationale_"))
        label = posts.features.get("label")
        digest.update(json.dumps([name, len(posts), columns, getattr(label, "names", None)]).encode())
        has_image = isinstance(posts.features.get("image"), Image)
        if has_image:
            posts = posts.cast_column("image", Image(decode=False))
        for batch in posts.select_columns(columns + ["image"] * has_image).with_format(None).iter(batch_size=64):
            for row in zip(*(batch[column] for column in columns), strict=True):
                digest.update(json.dumps(row).encode())
            if has_image:
                for image, post_id in zip(batch["image"], batch["id"], strict=True):
                    digest.update(bytes(32) if image is None else image_digest(image, post_id))
    return digest.hexdigest()[:16]
