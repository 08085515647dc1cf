"""The commands ``sedflow mcmc`` and ``sedflow compare``: exact posteriors of some galaxies, and how far a flow is from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import Profile, engines, numbers, read_from_options
from jobs.config import shipped
from jobs.config.sections import MCMC
from storage_schemas.backend.location import Location

if TYPE_CHECKING:
    from jobs.mcmc import Galaxies

mcmc_app = typer.Typer()


@mcmc_app.command()
def mcmc(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="photometry store, or mocks:100 for simulated galaxies of the model")
    ],
    model: Annotated[str, typer.Option(help="whose galaxy model and prior are sampled")],
    out: Annotated[str, typer.Option(help="where the chains go")],
    rows: Annotated[str, typer.Option(help="rows, for example 0,5,7-20; needed for a store")] = "",
    sampler: Annotated[str, typer.Option(help="zeus, emcee or nautilus (nested)")] = "zeus",
    walkers: Annotated[int, typer.Option()] = MCMC().walkers,
    steps: Annotated[int, typer.Option()] = MCMC().steps,
    burn_in: Annotated[int, typer.Option(help="steps discarded")] = MCMC().burn_in,
    thin: Annotated[int, typer.Option(help="steps between kept ones")] = MCMC().thin,
    checkpoint_steps: Annotated[int, typer.Option(help="what a killed actor may lose")] = MCMC().checkpoint_steps,
    start: Annotated[
        str,
        typer.Option(help="where walkers begin: prior (the flow has no part in the chain) or flow (sooner converged)"),
    ] = MCMC().start,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    actors: Annotated[int | None, typer.Option(min=1, help="actors; replaces the profile's  [default: 2]")] = None,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster; replaces the profile's")] = None,
    profile: Profile = None,
) -> None:
    """Sample galaxies' exact posteriors by MCMC, the flow's reference; what was interrupted goes on where it stopped."""
    from jobs import mcmc as job

    with read_from_options():
        settings = MCMC.model_validate({
            "sampler": sampler, "walkers": walkers, "steps": steps, "burn_in": burn_in, "thin": thin,
            "checkpoint_steps": checkpoint_steps, "start": start,
        })  # fmt: skip
    data = _galaxies(source, model, rows, seed)
    where = engines(profile).ray.replace(address=ray, actors=actors)
    job.sample(data, shipped.model(model), Location.parse(out), settings, seed, where)


@mcmc_app.command()
def compare(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="as for mcmc")],
    chains: Annotated[str, typer.Option(help="what sedflow mcmc wrote, for the same galaxies and seed")],
    model: Annotated[str, typer.Option(help="the model to compare with the chains")],
    rows: Annotated[str, typer.Option(help="rows of the store, as for mcmc")] = "",
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Tell a flow's posteriors, plain and weighted, from those of MCMC: C2ST and evidence."""
    from jobs.validate.compare import compare as tell

    tell(_galaxies(source, model, rows, seed), Location.parse(chains), shipped.model(model), seed)


def _galaxies(source: str, model: str, rows: str, seed: int) -> Galaxies:
    """Galaxies of a photometry store, or simulated ones."""
    import numpy as np

    from jobs import mcmc as job
    from sedflow_dist.flow.trained_model import TrainedModel
    from storage_schemas import model as model_store

    if not source.startswith("mocks:"):
        return job.rows_of(Location.parse(source), np.array(numbers(rows, "--rows")), shipped.model(model))
    flow = TrainedModel.from_bytes(*model_store.read(shipped.model(model)))
    data = job.mocks(flow, numbers(source.removeprefix("mocks:"), "INPUT")[0], seed)
    return data[numbers(rows, "--rows")] if rows else data
