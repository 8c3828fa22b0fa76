"""What commands share that make a product by tiles: where to, on which cluster, how patiently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcengine.cli import options
from lcengine.cli.progress import progress

if TYPE_CHECKING:
    from lcengine.engine import Policy
    from lcengine.jobs import Guard, Plan

Restart = Annotated[
    bool, typer.Option("--restart", help="Discard unfinished work or replace the product.")
]


@dataclass(frozen=True)
class Making:
    """How a product is made, whatever it is."""

    output: str
    cluster: str
    client: Callable[[], AbstractContextManager[Any]]
    store: str | None
    policy: Policy
    restart: bool

    def on_gpus(self) -> Making:
        """The same, where `local` is a worker that offers this machine's first GPU."""
        target = "local:gpus=1" if self.cluster == "local" else self.cluster
        return replace(self, cluster=target, client=options.connector(target))

    def run(
        self,
        plan: Plan | Callable[[], Plan],
        request: Mapping[str, Any],
        as_json: bool,
        *,
        guard: Guard | None = None,
        price: float | None = None,
    ) -> str:
        """Make it, with progress on stderr; where it lies. `price` is of a core-hour."""
        from lcengine import jobs

        with options.terminable(), progress(as_json, price) as listener:
            return jobs.run(
                plan,
                self.output,
                client=self.client,
                request=request,
                restart=self.restart,
                store=self.store,
                guard=guard,
                policy=self.policy,
                listener=listener,
            )


def making(
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Product to write: out.zarr or s3://bucket/out.zarr."),
    ],
    cluster: options.Cluster = "local",
    store: options.Store = None,
    retries: options.Retries = 2,
    patience: options.Patience = 3600.0,
    worker_timeout: options.WorkerTimeout = 120.0,
    restart: Restart = False,
) -> Making:
    """The options that say how; a cluster that cannot be is refused at once."""
    from lcengine.engine import Policy

    policy = Policy(retries=retries, patience=patience, worker_timeout=worker_timeout)
    return Making(output, cluster, options.connector(cluster), store, policy, restart)
