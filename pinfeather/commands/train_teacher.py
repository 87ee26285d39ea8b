"""The command ``pinfeather train teacher``."""

from __future__ import annotations

from typing import Any

import click

from pinfeather.options import FiniteRange, device_option, json_option, precision_option, repo_option
from pinfeather.output import emit_json, say

pairs_option = click.option(
    "--pairs",
    "files",
    multiple=True,
    metavar="FILE",
    show_envvar=True,
    help="Judged pairs (query, title, description?, level, level_mean?, level_variance?) instead of the repository's "
    "judgments. Repeatable.",
)


@click.command("teacher")
@repo_option
@pairs_option
@click.option("--out", metavar="DIR", show_envvar=True, help="Folder of the teacher; default: in the repository.")
@click.option("--name", show_envvar=True, help="Name of the teacher; default teacher-N.")
@click.option(
    "--base",
    default="packaged",
    show_default=True,
    show_envvar=True,
    metavar="packaged|DIR|ID",
    help="Backbone: the packaged MiniLM, a folder, or a Hugging Face id that was fetched before.",
)
@click.option(
    "--pooling",
    type=click.Choice(["cls", "segments", "last"]),
    show_envvar=True,
    help="cls or segments for encoders, last for decoders; default segments, or last.",
)
@click.option("--max-length", default=128, show_default=True, type=click.IntRange(8), show_envvar=True, help="Tokens.")
@click.option(
    "--frozen-layers",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    show_envvar=True,
    help="Lowest layers kept.",
)
@click.option("--lora", metavar="FILE", show_envvar=True, help="JSON with arguments of PEFT's LoraConfig.")
@click.option("--quantize", type=click.Choice(["4bit"]), show_envvar=True, help="With --lora, on CUDA: QLoRA.")
@click.option(
    "--prior/--no-prior", default=True, show_default=True, show_envvar=True, help="Begin from cosine and words."
)
@click.option(
    "--loss",
    type=click.Choice(["cross-entropy", "ordinal"]),
    default="cross-entropy",
    show_default=True,
    show_envvar=True,
    help="ordinal charges distance.",
)
@click.option(
    "--balance",
    default=0.0,
    show_default=True,
    type=FiniteRange(0, 1),
    show_envvar=True,
    help="0 leaves levels as they come, 1 lets all weigh alike.",
)
@click.option("--epochs", default=2, show_default=True, type=click.IntRange(1), show_envvar=True, help="At most.")
@click.option(
    "--learning-rate",
    default=1e-4,
    show_default=True,
    type=FiniteRange(0, min_open=True),
    show_envvar=True,
    help="Of the backbone, at its peak.",
)
@click.option(
    "--batch-tokens", default=2_048, show_default=True, type=click.IntRange(64), show_envvar=True, help="Of one step."
)
@click.option(
    "--held-back",
    default=0.1,
    show_default=True,
    type=FiniteRange(0.02, 0.5),
    show_envvar=True,
    help="Share of the queries that stop the training and calibrate.",
)
@click.option(
    "--patience",
    default=4,
    show_default=True,
    type=click.IntRange(1),
    show_envvar=True,
    help="Evaluations without a better loss after which it stops; there are four an epoch.",
)
@click.option(
    "--dropout", default=0.0, show_default=True, type=FiniteRange(0, 0.9), show_envvar=True, help="In the backbone."
)
@click.option("--gradient-checkpointing", is_flag=True, show_envvar=True, help="Less memory, more time.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), show_envvar=True, help="Members.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), show_envvar=True)
@device_option
@precision_option
@json_option
def train_teacher_command(
    repo: str,
    files: tuple[str, ...],
    out: str | None,
    name: str | None,
    base: str,
    pooling: str | None,
    max_length: int,
    frozen_layers: int,
    lora: str | None,
    quantize: str | None,
    prior: bool,
    seeds: int,
    device: str,
    precision: str,
    as_json: bool,
    **how: Any,
) -> None:
    """Train a cross-encoder on the five levels that people gave: the teacher that labels for the student.

    Interrupt it at will: the same command goes on where it was. JSON: {teacher, folder, teacher_version, base,
    temperature, members, pairs, queries, held_back_pairs, levels, held_back_loss ...}.

    \b
    Examples:
      pinfeather train teacher --repo my_repo
      pinfeather train teacher --pairs judged.parquet --out teacher --epochs 3 --seeds 2
      pinfeather train teacher --repo my_repo --base FacebookAI/xlm-roberta-large --lora lora.json --device cuda
      pinfeather evaluate --pairs held_out.parquet --scorer teacher --bundle teacher
    """
    from pinfeather.training_teacher import read_lora, train_teacher

    cross = {
        "base": base,
        "pooling": pooling or "",
        "max_length": max_length,
        "frozen_layers": frozen_layers,
        "lora": read_lora(lora),
        "quantize": quantize or "",
    }
    how["prior"] = "packaged" if prior else None
    trained = train_teacher(repo, files, out, name, cross, how, seeds, device, precision, say)
    if as_json:
        emit_json(trained)
        return
    say(f"Teacher {trained['teacher']} of {trained['pairs']:,} pairs, {trained['queries']:,} queries.")
    say(f"It lies at {trained['folder']}, version {trained['teacher_version']}.")
    say(f"Judge it: `pinfeather evaluate --pairs FILE --scorer teacher --bundle {trained['folder']}`.")
    say(f"Let it label: `pinfeather sample`, then `pinfeather label --teacher {trained['teacher']}`.")
