"""Outputs of the frozen encoders of a network, as a feature store gives them to its forward."""

import torch


def stored_outputs(network, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Encode a batch with the frozen encoders of a network; missing texts and images have zeros."""
    outputs = {}
    for encoder in network.frozen_encoders():
        if encoder.reads == "image":
            present = batch["image_mask"]
            for name, rows in encoder.encode(pixel_values=batch["pixel_values"][present]).items():
                outputs[name] = rows.new_zeros(len(present), *rows.shape[1:]).index_put((present,), rows)
            continue
        prefix = "" if encoder.reads == "text" else "rationale_"
        ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
        rows = encoder.encode(input_ids=ids.reshape(-1, ids.shape[-1]), attention_mask=mask.reshape(-1, ids.shape[-1]))
        outputs |= {name: values.view(*ids.shape[:-1], *values.shape[1:]) for name, values in rows.items()}
    return outputs


def stored_batch(network, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace the inputs of frozen encoders in a batch by their outputs."""
    live = network.live_inputs()
    kept = {name: value for name, value in batch.items() if name in live or "mask" in name or name == "labels"}
    return kept | {"encoder_outputs": stored_outputs(network, batch)}
