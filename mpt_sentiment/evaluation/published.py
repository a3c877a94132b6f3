"""Numbers that the paper reports for each system."""

# System → (accuracy, weighted F1) by dataset, from Table 3 (without rationales; MPT has them) and Table 4 (with).
# Several rows of Table 3 equal those of earlier papers digit for digit, and not all were measured on the same posts.
DATASETS = ("mvsa_single", "mvsa_multiple", "memotion", "ch_mits")
TABLE_3: dict[str, dict[str, tuple[float, float]]] = {
    name: {dataset: row[2 * column : 2 * column + 2] for column, dataset in enumerate(DATASETS)}
    for name, row in {
        "text_cnn": (0.6819, 0.5590, 0.6564, 0.5766, 0.4657, 0.4508, 0.7185, 0.7183),
        "bilstm": (0.7012, 0.6506, 0.6790, 0.6790, 0.5036, 0.4536, 0.8735, 0.8733),
        "bert": (0.7111, 0.6970, 0.6759, 0.6624, 0.5572, 0.4608, 0.9136, 0.9138),
        "image_cnn": (0.6526, 0.6364, 0.6662, 0.6623, 0.4943, 0.4494, 0.8865, 0.8863),
        "vit": (0.6715, 0.6226, 0.6765, 0.5864, 0.5401, 0.4528, 0.9260, 0.9270),
        "co_mem": (0.7051, 0.7001, 0.6992, 0.6883, 0.5354, 0.4608, 0.9580, 0.9581),
        "mvan": (0.7298, 0.7298, 0.7183, 0.7038, 0.5583, 0.4683, 0.9679, 0.9679),
        "pemnet": (0.7317, 0.7177, 0.7109, 0.6921, 0.5618, 0.4727, 0.9778, 0.9780),
        "mgnns": (0.7377, 0.7270, 0.7249, 0.6934, 0.5518, 0.4665, 0.9629, 0.9629),
        "cgaft": (0.7416, 0.7305, 0.7233, 0.6992, 0.5715, 0.4697, 0.9703, 0.9703),
        "itin": (0.7456, 0.7437, 0.7215, 0.6975, 0.5768, 0.4754, 0.9653, 0.9653),
        "clmlf": (0.7533, 0.7346, 0.7200, 0.6983, 0.5761, 0.4731, 0.9703, 0.9702),
        "citenet": (0.7609, 0.7467, 0.7289, 0.7035, 0.5794, 0.4755, 0.9752, 0.9752),
        "mpt": (0.7795, 0.7562, 0.7294, 0.7107, 0.5837, 0.4816, 0.9802, 0.9802),
    }.items()
}
TABLE_4: dict[str, dict[str, tuple[float, float]]] = {
    "co_mem": {"mvsa_single": (0.7183, 0.7106), "mvsa_multiple": (0.7040, 0.6992)},
    "clmlf": {"mvsa_single": (0.7595, 0.7386), "mvsa_multiple": (0.7228, 0.7019)},
    "itin": {"mvsa_single": (0.7584, 0.7482), "mvsa_multiple": (0.7239, 0.7066)},
}


def published(system: str, dataset: str, rationales: bool) -> tuple[float, float] | None:
    """Return the (accuracy, weighted F1) that the paper reports, or `None`."""
    table = TABLE_4 if rationales and system != "mpt" else TABLE_3
    return table.get(system, {}).get(dataset) if rationales or system != "mpt" else None
