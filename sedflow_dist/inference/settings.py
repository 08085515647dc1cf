"""Settings of inference that a row's answer depends on; a run file's section `inference` has them and how work is cut."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sedflow_dist.inference.densities import Density, mass_function
from sedflow_dist.inference.redshift_prior import RedshiftTable
from sedflow_dist.sps.chosen import Chosen

#: Steps of a chain between kept ones.
THIN = 10


class Routing(BaseModel):
    """Where rows go that the flow's draws do not answer well enough, and what they may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effective_draws: int = Field(100, ge=1, description="fewest effective draws of an answer; below, the row goes on")
    more_draws: int = Field(
        8,
        ge=1,
        description="first step: twice the draws, four times, up to as many times, until they are enough; 1: skip it",
    )
    walkers: int = Field(32, ge=22, description="even; of the MCMC (emcee, differential evolution)")
    short_steps: int = Field(1500, ge=60, description="second step: steps from the flow's draws, a third discarded")
    long_steps: int = Field(10_500, ge=60, description="last step: as many again until it converges, up to these")
    share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of a shard's rows for MCMC, the worst first; others keep the flow's draws",
    )
    min_redshift: float = Field(
        0.001, ge=0, description="rows below are stars, most of them: they take the places of MCMC that galaxies leave"
    )
    min_snr: float = Field(
        3.0, ge=0, description="so do rows whose best band has less flux than so many of its uncertainties"
    )

    @model_validator(mode="after")
    def _check(self) -> Routing:
        if self.walkers % 2:
            raise ValueError(f"walkers: {self.walkers} is odd; ensembles are halved")
        if self.short_steps % THIN:
            raise ValueError(f"short_steps: {self.short_steps} is not a multiple of {THIN}")
        if self.long_steps % self.short_steps:
            raise ValueError(f"long_steps: {self.long_steps} is not a multiple of short_steps = {self.short_steps}")
        return self


#: How many galaxies of which mass there are, unless somebody says otherwise, where redshifts are inferred.
MASS_FUNCTION = "leja2020(min=7)"
#: What the density of a target prior is relative to: `sedflow_dist.inference.reweight`.
RelativeTo = Literal["implied", "unity"]


class TargetPrior(BaseModel):
    """Another prior than that of the training, as a factor of the importance weights (docs/priors.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    densities: tuple[str, ...] = Field(
        (), description="one a column, as `log_mstar_surviving=leja2020(min=8)` or `tau_ism=norm(0.3,0.2)`"
    )
    redshift: str | RedshiftTable | None = Field(
        None,
        exclude_if=lambda prior: prior is None,
        description="of redshifts that are inferred: `leja2020(min=8)`, the number of galaxies above a mass times the volume; a "
        "table, `{edges: [0, 0.1, ...], number: [...]}`; none: flat, as in the training",
    )
    relative_to: RelativeTo = Field(
        "implied",
        description="implied: the column gets the density, in place of the one that the interim prior implies; unity: the "
        "interim prior is multiplied by the density as it is",
    )

    @classmethod
    def of_galaxies(cls, mass_function: str = MASS_FUNCTION) -> TargetPrior:
        """Return that of redshifts and masses together: a mass function at each redshift, times the volume."""
        return cls(densities=(f"log_mstar_surviving={mass_function}",), redshift=mass_function)

    @field_validator("densities")
    @classmethod
    def _readable(cls, densities: tuple[str, ...]) -> tuple[str, ...]:
        for text in densities:
            Density.parse(text)
        return densities

    @field_validator("redshift")
    @classmethod
    def _of_redshifts(cls, prior: str | RedshiftTable | None) -> str | RedshiftTable | None:
        if isinstance(prior, str):
            mass_function(prior)
        return prior

    @property
    def is_empty(self) -> bool:
        """Whether it is the model's own prior."""
        return not (self.densities or self.redshift)


class InferenceSettings(Chosen):
    """What a row's answer depends on besides its photometry, the model and the seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_draws: int = Field(
        2048, ge=16, description="Sobol draws per galaxy; 2,048 give quantiles as 10,000 independent ones"
    )
    redshift_peaks: bool = Field(
        False,
        exclude_if=lambda asked: not asked,
        description="columns redshift_mode, redshift_odds and redshift_peaks, of models that infer redshifts",
    )
    keep_draws: int = Field(0, ge=0, description="draws stored per galaxy, 16 bits a coordinate")
    min_effective_fraction: float = Field(0.01, ge=0, le=1, description="below: unweighted and flagged")
    certificate: bool = Field(
        True,
        description="weigh draws by the exact likelihood; false: quantiles of the parameters alone, no "
        "routing; of flows with `preset: paper` only",
    )
    learned_likelihood: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description="compare the evidence with that under a learned likelihood of imperfect data: columns log_bayes_factor "
        "and log_bayes_factor_error (docs/model.md)",
    )
    band_tension: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description="predict each band from all others: columns band_p and band_log_predictive, and the flag BAND_IN_TENSION "
        "where one disagrees (docs/model.md)",
    )
    leave_out: Literal["tension"] | None = Field(
        None,
        exclude_if=lambda wanted: wanted is None,
        description="tension: such a band is left out and the row answered by the others; column left_out. Needs band_tension",
    )
    routing: Routing = Routing()
    prior: TargetPrior = TargetPrior()

    @model_validator(mode="after")
    def _check(self) -> InferenceSettings:
        if not (self.prior.is_empty or self.certificate):
            raise ValueError("prior: without the certificate draws have no weights that another prior could change")
        if self.learned_likelihood and not self.certificate:
            raise ValueError("learned_likelihood compares evidences, which certificate: false does not compute")
        if not (self.certificate or self.is_empty):
            raise ValueError(
                "certificate: false has the parameters alone, and none of the columns that are chosen here"
            )
        if self.band_tension and not self.certificate:
            raise ValueError("band_tension weighs draws, which certificate: false does not do")
        if self.leave_out and not self.band_tension:
            raise ValueError("leave_out: tension leaves out what band_tension: true finds; set that as well")
        return self


def refuse_amplitude(certificate: bool, amplitude: Literal["exact", "learnt"]) -> None:
    """Raise ValueError if quantiles are to do without the certificate of a flow whose amplitude needs it."""
    if not certificate and amplitude == "exact":
        raise ValueError(
            "quantiles without the certificate need a flow that learnt the amplitude (`flow: {preset: paper}`); this one's is "
            "drawn from the exact likelihood, which is most of the certificate's cost"
        )
