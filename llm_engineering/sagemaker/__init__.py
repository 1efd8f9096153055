"""The same fine-tuning inside a SageMaker training job: what is sent, checked and brought back."""
