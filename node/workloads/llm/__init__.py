"""The models and back ends of `llm_inference`."""
