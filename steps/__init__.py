"""ZenML steps: thin, each forwards to one function of llm_engineering."""
