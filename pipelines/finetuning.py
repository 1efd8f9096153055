"""The fine-tuning pipeline."""

from zenml import get_pipeline_context, pipeline

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.lineage.run_order import RunOrder
from llm_engineering.lineage.stack import configure_run, train_options, trains_here
from llm_engineering.registry.versions import model_name, zenml_model
from llm_engineering.training.identity import deciding_settings
from llm_engineering.training.order import ORDER, TrainOrder
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


@pipeline
def finetuning(config: FinetuningConfig) -> None:
    """Prepare data, load model, inject LoRA, train, evaluate, save model, promote.

    A command adds a ``RunOrder`` among the extra values; without one it is the same run, by whatever
    way it is started.

    Args:
        config: The resolved configuration; each step gets only the sections that it reads, so
            that a change elsewhere does not run it again.
    """
    configure_run(config)
    order = RunOrder.among(get_pipeline_context().extra)
    # Where the train step has a host of its own it alone holds the model; the steps before it
    # describe what it will load, those behind it read what it found.
    elsewhere = order.launch is None and not trains_here(config)
    dtype = order.described_dtype(config, elsewhere=elsewhere)
    data_inputs, model_inputs, code_inputs, train_inputs, scoring_inputs = look_at_inputs(
        config=config, trained_elsewhere=elsewhere
    )
    dataset = prepare_data(
        data=config.data,
        model=config.model,
        objective=config.train.objective,
        output_dir=config.run.output_dir,
        fingerprints=data_inputs,
        validates=config.train.validates,
        trainable_tokens=config.lora.trainable_tokens,
        scored_tool_calls=config.evaluate.scored_tool_calls,
    )
    base_model = load_model(
        settings=config.model,
        trainable_tokens=config.lora.trainable_tokens,
        fingerprints=model_inputs,
        described_dtype=dtype,
        after=["prepare_data"],  # bad data stops the run before a weight is loaded
    )
    fresh = inject_lora(
        model=base_model,
        settings=config.lora,
        fingerprints=code_inputs,
        described=dtype is not None,
    )
    told = TrainOrder(config=config, registered_as=model_name(config), elsewhere=elsewhere)
    adapter, record, lora = train.with_options(
        extra={ORDER: told.model_dump(mode="json")}, **train_options(config)
    )(
        lora=fresh,
        dataset=dataset,
        deciding=deciding_settings(
            config.train,
            config.evaluate,
            evaluated_there=elsewhere or order.launch is not None,
            exported_there=config.export if elsewhere else None,
        ),
        seed=config.run.seed,
        fingerprints=train_inputs,
        launch=order.launch,
    )
    evaluation = evaluate(
        lora=lora,
        adapter=adapter,
        dataset=dataset,
        record=record,
        settings=config.evaluate,
        fingerprints=code_inputs,
        scorers=scoring_inputs,
    )
    version = zenml_model(config)  # made when the save begins: a run that fails leaves none
    manifest, _ = save_model.with_options(model=version)(
        config=config,
        dataset=dataset,
        lora=lora,
        adapter=adapter,
        record=record,
        evaluation=evaluation,
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
