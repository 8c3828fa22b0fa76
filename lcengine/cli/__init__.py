"""The command line: from searching imagery to composites, pictures and rasters.

Heavy libraries are imported inside the commands, so `--help` answers at once. Results go to stdout
(as JSON with `--json`), progress and messages to stderr. Errors are one line and have stable exit
codes (see `lcengine.errors`); `--debug`, anywhere on the line, shows the traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import lcengine
from lcengine.cli import (
    composite,
    evaluate,
    export,
    labels,
    legends,
    models,
    predict,
    product,
    recovery,
    samples,
    search,
    sensors,
    train,
    world,
)
from lcengine.cli.output import complain, show_warnings
from lcengine.errors import LcengineError

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM; the same command resumes."""


class Group(TyperGroup):
    """Turns every error into one line and a stable exit code; with `--debug` it keeps traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, typer.Exit, typer.Abort, TyperException):
            raise  # the command line's own ways out; a broken pipe is `| head`
        except KeyboardInterrupt:
            kept = "; what is finished is kept, run the same command again to resume"
            making = ("composite", "evaluate", "labels", "predict", "retry", "samples", "train")
            resumable = ctx.invoked_subcommand in making
            complain(f"interrupted{kept if resumable else ''}")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:  # the last line before the user
            if ctx.params.get("debug"):
                raise
            complain(_explain(error))
            code = error.exit_code if isinstance(error, LcengineError) else LcengineError.exit_code
            raise typer.Exit(code) from None


def _explain(error: Exception) -> str:
    if isinstance(error, LcengineError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"unexpected {type(error).__name__}: {error}; --debug shows where"


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From satellite archives to cloud-free composites: STAC in, Zarr out.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lcengine {lcengine.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    show_warnings()


app.command("sensors")(sensors.sensors)
app.command("search")(search.search)
app.command("plan")(composite.plan)
app.command("composite", epilog=composite.choices())(composite.composite)
app.command("status")(recovery.status)
app.command("retry")(recovery.retry)
app.command("verify")(recovery.verify)
app.command("info")(product.info)
app.command("quicklook")(product.quicklook)
app.command("export")(export.export)
app.command("legends")(legends.legends)
app.add_typer(labels.app, name="labels")
app.command("samples", epilog=samples.choices())(samples.samples)
app.add_typer(models.app, name="models")
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("simulate")(world.simulate)
app.command("demo")(world.demo)


def main() -> None:
    """Console entry point. `--debug` may stand anywhere."""
    arguments = sys.argv[1:]
    if "--debug" in arguments:
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    app(arguments)
