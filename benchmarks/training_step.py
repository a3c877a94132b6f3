"""Training throughput and peak memory against a plain formulation of the same network.

    python benchmarks/training_step.py

BERT-base, ViT-B/16 at 224 px, the plain ConvNet, random weights, AdamW, text and rationale lengths of MVSA-Single.
The plain variant is that of the paper's released code: each text and rationale padded to 320 tokens, one encoder call
for each of the four, fp32. Each variant runs in its own process, because peak memory is per process. All figures are
ratios of one run. For the paper's batch of 16, the plain variant needs more than 22 GB of memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from modeling_mpt import MPTConfig, MPTForSentimentClassification

PLAIN_LENGTH = 320
# Deciles of token counts with BERT's vocabulary, of 1,243 posts of MVSA-Single and of their three rationales each.
TEXT_LENGTHS = (7, 16, 20, 23, 26, 29, 32, 36, 42, 49, 130)
RATIONALE_LENGTHS = (30, 38, 40, 41, 42, 43, 44, 45, 46, 48, 62)
VARIANTS = ("plain", "fp32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="measured training steps of a variant, after one warm-up")
    parser.add_argument("--posts", type=int, default=16, help="posts in a batch")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args.variant, args.steps, args.posts)))
        return
    results = {}
    for variant in VARIANTS:
        numbers = ["--steps", str(args.steps), "--posts", str(args.posts)]
        command = [sys.executable, __file__, "--variant", variant, *numbers]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if finished.returncode:
            sys.exit(f"The variant {variant!r} failed with code {finished.returncode} (-9: out of memory).")
        results[variant] = json.loads(finished.stdout.splitlines()[-1])
    plain = results["plain"]
    print(f"{'variant':<8}{'throughput':>12}{'peak memory':>14}   (plain = 1)")
    for variant, result in results.items():
        throughput = plain["seconds"] / result["seconds"]
        print(f"{variant:<8}{throughput:>11.1f}×{result['peak'] / plain['peak']:>13.0%}")


def measure(variant: str, steps: int, posts: int) -> dict[str, float]:
    """Measure median seconds of a training step and peak memory of this process in bytes."""
    torch.manual_seed(0)
    model = MPTForSentimentClassification(MPTConfig()).train()
    if variant == "plain":
        model.mpt._states = lambda text, rationales, layers: plain_states(model.mpt.text_encoder, text, rationales)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batch = make_batch(model.config, posts)
    seconds = []
    for step in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step > 0:
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": sorted(seconds)[len(seconds) // 2], "peak": peak}


def plain_states(encoder, text, rationales):
    """Encode as `MPTModel._states` does, but by four encoder calls over 320 tokens."""
    (ids, mask, _), (rationale_ids, rationale_mask, _) = text, rationales
    calls = [(ids, mask)]
    per_post = rationale_ids.view(len(ids), -1, rationale_ids.shape[-1])
    per_post_mask = rationale_mask.view_as(per_post)
    calls += [(per_post[:, p], per_post_mask[:, p]) for p in range(per_post.shape[1])]
    states = [encoder(input_ids=i, attention_mask=m.long()).last_hidden_state * m.unsqueeze(-1) for i, m in calls]
    return states[0], torch.stack(states[1:], dim=1).flatten(0, 1)


def make_batch(config: MPTConfig, posts: int, side: int = 224) -> dict[str, torch.Tensor]:
    """Make posts padded to 320 tokens. The model's own variants remove the padding."""
    perspectives = len(config.perspectives)
    input_ids, attention_mask = tokens(posts, TEXT_LENGTHS)
    rationale_ids, rationale_mask = tokens(posts * perspectives, RATIONALE_LENGTHS)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "pixel_values": torch.randn(posts, 3, side, side),
        "rationale_input_ids": rationale_ids.view(posts, perspectives, -1),
        "rationale_attention_mask": rationale_mask.view(posts, perspectives, -1),
        "labels": torch.randint(config.num_labels, (posts,)),
    }


def tokens(rows: int, deciles: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw ids and mask `(rows, 320)` with lengths spread evenly over the deciles."""
    positions = torch.linspace(0, len(deciles) - 1, rows)
    values = torch.tensor(deciles, dtype=torch.float)
    low, high = values[positions.floor().long()], values[positions.ceil().long()]
    lengths = (low + (high - low) * (positions - positions.floor())).round().long()[torch.randperm(rows)]
    mask = (torch.arange(PLAIN_LENGTH) < lengths.unsqueeze(1)).long()
    return torch.randint(1000, 30000, mask.shape) * mask, mask


if __name__ == "__main__":
    main()
