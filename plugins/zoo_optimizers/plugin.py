"""Declares the optimizers."""

from collections.abc import Iterator

from zoo_core.plugin import ComponentSpec, hookimpl

ZOO_API_VERSION = 1


@hookimpl
def zoo_components() -> Iterator[ComponentSpec]:
    """Declare the parts of this plugin."""
    yield ComponentSpec(
        kind="optimizer",
        name="adamw",
        config="zoo_optimizers.config:AdamWConfig",
        factory="zoo_optimizers.torch_optimizers:adamw",
        summary="Adam with decoupled weight decay, in one kernel where torch has it",
    )
    yield ComponentSpec(
        kind="optimizer",
        name="sgd",
        config="zoo_optimizers.config:SgdConfig",
        factory="zoo_optimizers.torch_optimizers:sgd",
        summary="Stochastic gradient descent with momentum",
    )
    yield ComponentSpec(
        kind="optimizer",
        name="muon",
        config="zoo_optimizers.config:MuonConfig",
        factory="zoo_optimizers.muon:MuonWithAdamW",
        summary="Orthogonalised momentum for matrices, and AdamW for all other parameters",
    )
    yield ComponentSpec(
        kind="optimizer",
        name="adamw-schedulefree",
        config="zoo_optimizers.config:ScheduleFreeConfig",
        factory="zoo_optimizers.schedule_free:schedule_free_adamw",
        summary="AdamW that averages its weights, and needs no schedule beyond a warm-up",
        requires=("schedulefree",),
    )
    yield ComponentSpec(
        kind="optimizer",
        name="timm",
        config="zoo_optimizers.config:TimmOptimizerConfig",
        factory="zoo_optimizers.timm_optimizers:timm_optimizer",
        summary="Any optimizer of timm by its name: LAMB, Lion, Adan, Adafactor and a hundred more",
        requires=("timm",),
    )
