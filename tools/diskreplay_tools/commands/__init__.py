"""Commands: one file a command or a small family of them, thin over library calls."""

from __future__ import annotations

from diskreplay_tools.commands import (
    bench,
    change,
    demo,
    exporting,
    importing,
    inspect,
    make,
    report,
    serve,
    token,
    top,
    ui,
    verify,
)

__all__ = ["SECTIONS"]

# The sections of the help, and the commands of each.
SECTIONS = {
    "Look into a store": (
        inspect.inspect,
        inspect.schema,
        report.report,
        verify.verify,
        top.top,
        ui.ui,
    ),
    "Change a store": (change.compact, change.resize, change.convert, change.clear),
    "Make a store of others": (
        make.copy,
        make.merge,
        make.repair,
        make.transform,
        importing.import_,
    ),
    "Take data out": (exporting.export,),
    "Serve stores to other machines": (serve.serve, token.token),
    "Try it": (bench.bench, demo.demo),
}
