"""The command that captions images."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import (
    FiniteRange,
    allow_deletes_option,
    device_option,
    json_option,
    lock_timeout_option,
    max_gone_option,
    repo_option,
)
from pinfeather.output import emit_json, progress, say, say_at_once, table

if TYPE_CHECKING:
    from embedders.captions.model import CaptionerFolder
    from materialize.captions.counts import CaptionCounts
    from materialize.captions.sources import ImageSource

_THIS = "this"
_LISTING = frozenset({"repo", "as_json", "use", "model"})
"""Options that also do something without --model."""


@click.command("caption")
@repo_option
@click.option(
    "--model",
    metavar="ID|DIR",
    show_envvar=True,
    help="An image-to-text model: a folder, or a Hugging Face id. Without it the captioners are listed.",
)
@click.option("--fetch", is_flag=True, show_envvar=True, help="Fetch the model if it is an id that is not there yet.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Folder of image files: <sha256>.* in it, or image_uri as a path in it.",
)
@click.option(
    "--image-table",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="Parquet file, or folder of them, with the columns image_sha256 and bytes.",
)
@click.option("--prompt", show_envvar=True, help="Beginning of the sentence (BLIP, BLIP-2), or question (chat models).")
@click.option(
    "--batch",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1024),
    show_envvar=True,
    help="Images at once; fewer where they do not fit into memory.",
)
@click.option(
    "--beams", default=1, show_default=True, type=click.IntRange(1, 32), show_envvar=True, help="Beam search."
)
@click.option("--top-p", type=FiniteRange(0, 1, min_open=True), show_envvar=True, help="Nucleus sampling instead.")
@click.option("--seed", default=0, show_default=True, show_envvar=True, help="Of the sampling, with --top-p.")
@click.option(
    "--max-tokens",
    default=40,
    show_default=True,
    type=click.IntRange(1, 512),
    show_envvar=True,
    help="Longest caption, in tokens of the model.",
)
@click.option(
    "--language",
    default="en",
    show_default=True,
    show_envvar=True,
    metavar="CODE|any",
    help="Captions in another language (ISO 639-1: en, de, ...) are flagged.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    show_envvar=True,
    help="auto takes bf16 where the device has it, else fp16 on a GPU and fp32 on a processor.",
)
@device_option
@click.option("--only", multiple=True, metavar="PIN", show_envvar=True, help="The images of these pins; repeatable.")
@click.option("--limit", type=click.IntRange(1), show_envvar=True, help="So many images at most, the rest later.")
@click.option("--plan", is_flag=True, show_envvar=True, help="Count only; no model is loaded.")
@click.option(
    "--use",
    is_flag=False,
    flag_value=_THIS,
    metavar="[NAME]",
    show_envvar=True,
    help="Alone, beside --model: its captions count at once. With the name of a former captioner: switch to that.",
)
@max_gone_option
@allow_deletes_option
@lock_timeout_option
@json_option
@click.pass_context
def caption_command(
    context: click.Context, as_json: bool, repo: str, model: str | None, use: str | None, **given: Any
) -> None:
    """Caption the images of pins with a vision-language model; each image once, however many pins have it.

    Images are keyed by the pins table's image_sha256. Newest and most viewed come first. Safe to kill and to repeat:
    Ctrl-C and SIGTERM end it after the batch under way (exit code 130). Images that cannot be read are in
    data/rejected/images.parquet with the reason (exit code 3). Captions that fail the quality gate are kept, flagged
    and left out of the pin text. While a new captioner is under way the captions of the old one count; it comes into
    use when it has every image. Run `pinfeather aggregate` afterwards.

    JSON: {images, new, reused, captioned, flagged, flags, rejected, reasons, remaining, dropped, judged_anew,
    without_hash, unknown, captioner, fingerprint, in_use, interrupted, seconds, model_seconds, outside_model_share};
    with --plan {captioner, fingerprint, images, new, reused, without_hash, unknown}; without --model {captioners:
    [{captioner, fingerprint, captions, flagged, in_use, since, model, prompt}]}.

    \b
    Examples:
      pinfeather caption --repo my_repo --model Salesforce/blip-image-captioning-base --fetch --images photos
      pinfeather caption --repo my_repo --model models/blip2 --image-table images.parquet --beams 3 --device cuda
      pinfeather caption --repo my_repo --model models/vlm --images photos --prompt "Describe the image." --plan
      pinfeather caption --repo my_repo --use blip-image-captioning-base@1f2e
      pinfeather caption --repo my_repo
    """
    paths = RepoPaths.open(repo)
    _check_options(context, model, use, given)
    if model is None:
        _without_model(paths, use, given, as_json)
        return
    folder = _find(model, given)
    if given["plan"]:
        _plan(paths, folder, frozenset(given["only"]) or None, as_json)
        return
    counts = _caption(paths, folder, use is not None, given, as_json)
    if as_json:
        emit_json(counts.to_json())
    else:
        _show(counts)
    if counts.unknown:
        say(f"No such pins, or pins without an image: {', '.join(counts.unknown)}.")
    if counts.interrupted:
        say("Interrupted. What was captioned is kept: run the same command again to go on.")
        sys.exit(130)
    if counts.rejected:
        say(f"{counts.rejected:,} images were refused: see {paths.rejected / 'images.parquet'}.")
        sys.exit(3)


def _check_options(context: click.Context, model: str | None, use: str | None, given: dict[str, Any]) -> None:
    """Refuses what would do nothing. What the environment says stands for every call and may go unused."""
    from embedders.captions.language import expected_language

    named = [
        param
        for param in context.command.params
        if param.name and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
    if model is None:
        allowed = _LISTING | ({"lock_timeout"} if use not in (None, _THIS) else set())
        idle = [param.opts[0] for param in named if param.name not in allowed]
        if use == _THIS or idle:
            raise UsageError(
                f"Captioning needs a model: give --model ID or DIR. Without one {' and '.join(idle or ['--use'])} "
                "would do nothing; --use NAME switches to a former captioner, and without options they are listed."
            )
        return
    if use not in (None, _THIS):
        raise UsageError(f"--use {use} and --model exclude each other: --use alone means the captioner of --model.")
    if use is not None and given["plan"]:
        raise UsageError("--plan counts only and puts nothing in use: leave out --use, or --plan.")
    if given["top_p"] is None and any(param.name == "seed" for param in named):
        raise UsageError("--seed is of the sampling, and nothing is drawn without --top-p: give that, too, or neither.")
    expected_language(given["language"])  # before the weights are read


def _find(model: str, given: dict[str, Any]) -> CaptionerFolder:
    from embedders.captions import CaptionSettings, find_captioner

    settings = CaptionSettings(
        **{name: given[name] for name in ("prompt", "beams", "top_p", "max_tokens", "seed")}
    )  # before the weights are read
    return find_captioner(model, settings, fetch=given["fetch"])


def _caption(
    paths: RepoPaths, folder: CaptionerFolder, use: bool, given: dict[str, Any], as_json: bool
) -> CaptionCounts:
    from embedders.captions.hub import load_captioner
    from embedders.captions.images import require_pillow
    from materialize.captions.run import CaptionOptions, caption
    from materialize.spill import spill_folder
    from materialize.stopping import stop_on_signal

    # Said once by Pillow of an image that is then refused with a reason.
    warnings.filterwarnings("ignore", category=require_pillow().DecompressionBombWarning)
    named = ("batch", "limit", "max_gone", "allow_deletes", "lock_timeout")
    with (
        spill_folder(paths.data) as scratch,
        stop_on_signal(say_at_once) as stop,
        progress("caption", as_json, lines=True) as tell,
    ):
        options = CaptionOptions(
            **{name: given[name] for name in named},
            only=frozenset(given["only"]) or None,
            use=use,
            language=given["language"],
            about={"model": str(folder.path), "prompt": folder.prompt, "settings": folder.settings.to_json()},
            stop=stop,
            progress=tell,
            tell=say,
        )
        source = _source(given["images"], given["image_table"], scratch)
        return caption(
            paths, folder, lambda: load_captioner(folder, given["device"], given["precision"]), source, options
        )


def _source(images: Path | None, image_table: Path | None, scratch: Path) -> ImageSource:
    from materialize.captions.sources import FolderImages, TableImages

    if images is not None and image_table is None:
        return FolderImages(images)
    if image_table is not None and images is None:
        return TableImages(image_table, scratch)
    raise UsageError("Say where the images are: --images DIR or --image-table FILE, one of the two.")


def _without_model(paths: RepoPaths, use: str | None, given: dict[str, Any], as_json: bool) -> None:
    from materialize.captions.using import list_captioners, use_captioner

    if use is not None:
        now = use_captioner(paths, use, given["lock_timeout"])
        say(f"The captions of {now.name} count: run aggregate, then materialize.")
    captioners = list_captioners(paths)
    if as_json:
        emit_json({"captioners": captioners})
        return
    columns = ("captioner", "captions", "flagged", "in_use", "since", "model")
    table("Captioners", columns, [[one[name] for name in columns] for one in captioners])
    if not captioners:
        say("None yet: `pinfeather caption --model ID --images DIR` makes the first.")


def _plan(paths: RepoPaths, folder: CaptionerFolder, only: frozenset[str] | None, as_json: bool) -> None:
    from dataclasses import asdict

    from materialize.captions.run import plan_captions

    plan = plan_captions(paths, folder, only)
    answer = {"captioner": folder.name, "fingerprint": folder.fingerprint, **asdict(plan)}
    if as_json:
        emit_json(answer)
    else:
        table(
            "Plan",
            ("images", "new", "reused", "without_hash"),
            [[plan.images, plan.new, plan.reused, plan.without_hash]],
        )
        say(f"For captioner {folder.name}.")


def _show(counts: CaptionCounts) -> None:
    answer = counts.to_json()
    names = ("images", "captioned", "reused", "flagged", "rejected", "remaining", "dropped", "seconds")
    table("Captions", names, [[answer[name] for name in names]])
    for title, reasons in (("Left out of the pin text", counts.flags), ("Refused", counts.reasons)):
        if reasons:
            table(title, ("reason", "images"), reasons.most_common())
    if counts.outside_model_share is not None:
        say(f"{counts.outside_model_share:.1%} of the captioning was outside the model.")
    if counts.without_hash:
        say(f"{counts.without_hash:,} pins name an image and no image_sha256: they get no caption.")
    say(f"Captioner {counts.captioner}; in use is {counts.in_use or 'none yet'}.")
