"""Fine-tuning: load model, inject LoRA, train, save model."""
