"""Fine-tuning of LoRA adapters: configuration, data, model, evaluation, reports."""
