"""The fine-tuning pipeline."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.lineage.fingerprints import Fingerprints
from llm_engineering.registry.versions import model_name, zenml_model
from llm_engineering.sagemaker.launch_order import Launch
from llm_engineering.training.identity import deciding_settings
from llm_engineering.training.order import ORDER, TrainOrder
from llm_engineering.training.run import Resume
from steps.finetuning import (
    evaluate,
    inject_lora,
    load_model,
    look_at_inputs,
    prepare_data,
    promote,
    save_model,
    train,
)


@pipeline(execution_mode=ExecutionMode.FAIL_FAST)
def finetuning(
    name: str,
    config: FinetuningConfig,
    fingerprints: Fingerprints | None = None,
    started: float | None = None,
    resume: Resume = "never",
    launch: Launch | None = None,
    placement: Placement = HERE,
    described_dtype: str | None = None,
) -> None:
    """Prepare data, load model, inject LoRA, train, evaluate, save model, promote.

    Args:
        name: The run's name, which its output folder and its model version share.
        config: The resolved configuration; each step gets only the sections that it reads, so
            that a change elsewhere does not run it again.
        fingerprints: Digests of what lies behind the settings, for the cache; None takes them in
            a first step, for runs that an orchestrator starts by its own schedule.
        started: When the command started, seconds since the epoch; None: when the run did.
        resume: Whether to continue an interrupted, otherwise equal run.
        launch: Train in a SageMaker job; None trains here.
        placement: The ranks that train where ``launch`` is None.
        described_dtype: Type of the frozen weights in that job, or on those ranks; None where this
            process loads them itself.
    """
    output_dir, seed = config.run.output_dir, config.run.seed
    if fingerprints is None:
        data_inputs, model_inputs, code_inputs, train_inputs = look_at_inputs(config=config)
    else:
        data_inputs = [fingerprints.data, fingerprints.model, fingerprints.code]
        model_inputs = [fingerprints.model, fingerprints.code]
        code_inputs = [fingerprints.code]
        train_inputs = [fingerprints.start, fingerprints.code]
    dataset = prepare_data(
        data=config.data,
        model=config.model,
        objective=config.train.objective,
        output_dir=output_dir,
        fingerprints=data_inputs,
        validates=config.train.validates,
    )
    base_model = load_model(
        settings=config.model,
        fingerprints=model_inputs,
        described_dtype=described_dtype,
        launched=launch is not None,
        after=["prepare_data"],  # bad data stops the run before a weight is loaded
    )
    lora = inject_lora(
        model=base_model,
        settings=config.lora,
        fingerprints=code_inputs,
        described=described_dtype is not None,
        launched=launch is not None,
    )
    order = TrainOrder(
        settings=config.train,
        evaluate=config.evaluate,
        output_dir=output_dir,
        resume=resume,
        registered_as=model_name(config),
        placement=placement,
    )
    adapter, record = train.with_options(extra={ORDER: order.model_dump(mode="json")})(
        lora=lora,
        dataset=dataset,
        deciding=deciding_settings(
            config.train,
            config.evaluate,
            evaluated_there=launch is not None or placement.ranks > 1,
        ),
        seed=seed,
        fingerprints=train_inputs,
        launch=launch,
    )
    evaluation = evaluate(
        lora=lora,
        adapter=adapter,
        dataset=dataset,
        record=record,
        settings=config.evaluate,
        fingerprints=code_inputs,
    )
    version = zenml_model(config, name)  # made when the save begins: a run that fails leaves none
    manifest, _ = save_model.with_options(model=version)(
        config=config,
        dataset=dataset,
        lora=lora,
        adapter=adapter,
        record=record,
        evaluation=evaluation,
        started=started,
    )
    promote.with_options(model=version)(
        config=config,
        dataset=dataset,
        lora=lora,
        adapter=adapter,
        record=record,
        evaluation=evaluation,
        manifest=manifest,
    )
