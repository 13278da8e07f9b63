"""Models and back ends behind `llm_inference`."""
