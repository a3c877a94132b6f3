"""Error of the feature store."""


class FeatureStoreError(ValueError):
    """The store cannot be used: no space, no permission, or posts that change between epochs."""
