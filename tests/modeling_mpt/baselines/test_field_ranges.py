"""Error messages for fields of the baselines outside their range."""

import pytest

from helpers import tiny_baselines


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert", {"hidden_size": 0}, "`hidden_size` must be at least 1, got 0"),
        ("bert", {"text_provider": "embeddings"}, r"`text_provider` must be one of \['encoder'\], got 'embeddings'"),
        ("bert", {"visual_provider": "patches"}, "`visual_provider` must be one of .* got 'patches'"),
        ("bert", {"scene_provider": "places"}, "`scene_provider` .* BERT.* got 'places'"),
        ("bert", {"use_rationales": 1}, "`use_rationales` must be true or false"),
        ("bert", {"perspectives": []}, "`use_rationales=False`"),
        ("bert", {"use_rationale": True}, "BertSentimentConfig .* `use_rationale`.* `use_rationales`"),
        ("text_cnn", {"kernel_sizes": []}, r"`kernel_sizes` must be positive .* got \[\]"),
        ("text_cnn", {"num_filters": 1.5}, "`num_filters` must be an integer, got 1.5"),
        ("image_cnn", {"visual_provider": "vit_patches"}, r"one of \['cnn_grid'\]"),
        ("co_mem", {"num_hops": 0}, "`num_hops` must be at least 1, got 0"),
        ("mvan", {"hidden_size": 15}, "`hidden_size` must be even, got 15"),
        ("pemnet", {"sknet_kernel_sizes": [4]}, r"`sknet_kernel_sizes` must be odd .* got \[4\]"),
        ("itin", {"visual_share": 1.2}, "`visual_share` must be between 0 and 1, got 1.2"),
        ("mgnns", {"num_heads": 5}, "`num_heads` must divide `hidden_size` 16, got 5"),
        ("mgnns", {"object_threshold": 0.0}, "`object_threshold` must be above 0 .* got 0.0"),
        ("mgnns", {"neighbor_share": 1.0}, "`neighbor_share` must be .* below 1, got 1.0"),
        ("clmlf", {"fusion_layers": -1}, "`fusion_layers` must be at least 0, got -1"),
        ("clmlf", {"head_size": 5}, "`head_size` must divide `hidden_size` 16, e.g. 16, got 5"),
        ("clmlf", {"view_deletion": 1.0}, "`view_deletion` must be .* below 1, got 1.0"),
        ("clmlf", {"loss_weight_dbcl": -1.0}, "`loss_weight_dbcl` must be at least 0.* got -1.0"),
        ("cgaft", {"visual_provider": "detector"}, r"one of \['vit_patches', 'cnn_grid'\]"),
        ("vit", {"visual_provider": "cnn_grid", "head_size": 5}, r"`head_size` must divide `hidden_size`"),
        ("citenet", {"contrastive_temperature": -1.0}, "`contrastive_temperature` must be positive, got -1.0"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_baselines.config(name, **changes)
