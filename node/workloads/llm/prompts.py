"""What both back ends must do alike: the chat template of the default model, the meaning of a chat, refusals."""

from __future__ import annotations

from typing import Any

from mesh.kinds.llm_inference import LlmInferencePayload
from node.executor.context import InputFault

#: A chat template without the system message that the default model's own template adds. With that message the model
#: gives wrong answers ("What is the capital of France?" gets a list of French words, measured in Q4_1).
PLAIN_CHAT = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_MESSAGE_CHARS = 300
#: What llama.cpp writes before the message of a template.
_JINJA = "Jinja Exception: "


def field_of(payload: LlmInferencePayload) -> str:
    """The field that holds the prompts."""
    return next(name for name in ("messages", "prompts", "prompt") if getattr(payload, name))


def refused(payload: LlmInferencePayload, reason: str) -> InputFault:
    """The fault of a prompt, or of a chat, that the model's chat template or back end refuses."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()] or ["no reason is given"]
    words = lines[-1].rpartition(_JINJA)[2][:_MESSAGE_CHARS]
    return InputFault(field_of(payload), f"can't be used with this model: {words}")


def no_template() -> InputFault:
    """The fault of a chat for a model that has no chat template."""
    return InputFault("messages", "can't be used with this model, which has no chat template; use prompt")


def chat_text(tokenizer: Any, chat: list[dict[str, str]], payload: LlmInferencePayload) -> str:
    """A chat in the form that the model reads, up to where the answer begins.

    A chat that ends with the assistant's turn is continued after that turn, as in llama.cpp. Raises: InputFault.
    """
    begun = chat[-1]["content"] if chat[-1]["role"] == "assistant" else ""
    before = chat[:-1] if begun else chat
    try:
        # A list of chats: transformers can't tell one without any turn from none.
        (text,) = tokenizer.apply_chat_template([before], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template raises whatever its author chose
        raise refused(payload, str(error)) from None
    return text + begun


def chat_tokens(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a formatted chat, with one begin token if the model has prompts begin with one."""
    tokens = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    begin = tokenizer.bos_token_id
    with_begin = begin is not None and tokenizer("a")["input_ids"][:1] == [begin]
    return [begin, *tokens] if with_begin and tokens[:1] != [begin] else tokens
