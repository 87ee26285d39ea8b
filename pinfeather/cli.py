"""The command line. Commands load their modules only when they run, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping

import click

from feature_repo.errors import PinfeatherError, UsageError
from pinfeather import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("pinfeather.commands.demo", "Everything once, on a generated catalogue."),
    "init": ("pinfeather.commands.repo", "Write a repository of your own."),
    "generate": ("pinfeather.commands.repo", "Fill a repository with a believable synthetic catalogue."),
    "import": ("pinfeather.commands.importing", "Turn a public data set into raw tables and judgments."),
    "validate": ("pinfeather.commands.repo", "Check the raw tables against their contracts."),
    "aggregate": ("pinfeather.commands.repo", "Make the sources of the feature views, as of a time."),
    "caption": ("pinfeather.commands.caption", "Caption the images of pins with a vision-language model."),
    "lexical": ("pinfeather.commands.repo", "Fit the statistics behind BM25."),
    "apply": ("pinfeather.commands.repo", "Apply the Feast definitions."),
    "plan": ("pinfeather.commands.vectors", "Count what materialize would do, without loading a model."),
    "materialize": ("pinfeather.commands.vectors", "Embed what changed and write features and vectors to Qdrant."),
    "audit": ("pinfeather.commands.oncall", "Compare source, ledger, vector log and store, and heal them."),
    "erase": ("pinfeather.commands.erase", "Take users, pins or queries out of everything, and prove it."),
    "runs": ("pinfeather.commands.oncall", "What past runs did, and how they ended."),
    "spaces": ("pinfeather.commands.spaces", "Further spaces: create, backfill, compare, freeze, pin, drop."),
    "promote": ("pinfeather.commands.releases", "Make a space the live one, through a gate."),
    "rollback": ("pinfeather.commands.releases", "Let a former release serve again."),
    "export": ("pinfeather.commands.transfer", "Write the vectors of the last runs for others to follow."),
    "restore": ("pinfeather.commands.transfer", "Refill a lost store without a model."),
    "sample": ("pinfeather.commands.sample", "Draw pairs of the search log for labelling."),
    "label": ("pinfeather.commands.label", "Let a teacher label the pairs of samples."),
    "train": ("pinfeather.commands.models", "Train the student on the judgments."),
    "evaluate": ("pinfeather.commands.evaluate", "Judge scorers on human labels."),
    "search": ("pinfeather.commands.serving", "Search pins, with five-level relevance."),
    "score": ("pinfeather.commands.serving", "Score a query against given pins."),
    "related": ("pinfeather.commands.lists", "Pins related to a pin."),
    "home-feed": ("pinfeather.commands.lists", "A feed from recently seen pins."),
    "boards": ("pinfeather.commands.lists", "Pins that fit a board, and boards that fit a pin."),
    "features": ("pinfeather.commands.features", "Look up features of pins, or report on those of all pins."),
    "embed": ("pinfeather.commands.serving", "Vectors of queries or pins."),
    "serve": ("pinfeather.commands.serve", "Serve it over HTTP, with a web page."),
}


class LazyGroup(click.Group):
    """A group whose commands live in :data:`COMMANDS` and are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a first day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={
        "auto_envvar_prefix": "PINFEATHER",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="pinfeather")
def cli() -> None:
    """Feature-store-centric embeddings: Feast says what a feature is, Qdrant holds the vectors, a student scores.

    \b
    Start with:
      pinfeather demo                      everything once, on a generated catalogue
      pinfeather init my_repo              a repository of your own
      pinfeather COMMAND --help            options, environment variables, examples

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with rejected rows, pins or images,
    130 interrupted at a clean point. With --json, stdout holds data only.
    """


def main() -> None:
    """Entry point: run the command line and turn every expected error into one message and an exit code."""
    from materialize.stores.errors import StoreError

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models come from folders, never from a hub at run time
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. What was committed stays; run the same command again to go on.", err=True)
        sys.exit(130)
    except (PinfeatherError, StoreError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:  # else Python tries again at its end, and complains
            _drop_output()
        click.echo(f"Error: {_system_message(error)}", err=True)
        sys.exit(1)


def _drop_output() -> None:
    """Let what nobody can receive any more go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Give yourself permission for it"),
}


def _system_message(error: OSError) -> str:
    """What the system refused: the file, the reason, what to do."""
    files = ", ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "Correct that")
    return f"{files + ': ' if files else ''}{reason.rstrip('.')}. {remedy}, then run the same command again."


if __name__ == "__main__":
    main()
