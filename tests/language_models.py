"""Language models small enough for a test to make: a Llama with random weights, and one whose answers are scripted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

WORDS = [f"w{number}" for number in range(60)]
#: A chat template that joins each message's role and content with spaces.
CHAT = "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}"


def tiny_llama(folder: Path, chat: bool = False, tied: bool = False) -> Path:
    """Write config.json, model.safetensors and a tokenizer to `folder`; the model never emits its end token."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<unk>", "<pad>", "</s>", "user", *WORDS]
    tokenizer = Tokenizer(WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    if chat:
        fast.chat_template = CHAT
    torch.manual_seed(1)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.5, tie_word_embeddings=tied,
            bos_token_id=None, eos_token_id=None, pad_token_id=1,
        )
    )  # fmt: skip
    network.save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder


_IN_GGUF = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output",
}  # fmt: skip


def tiny_gguf(llama: Path, file: Path) -> None:
    """The weights of a `tiny_llama` as GGUF, with a tokenizer of 60 characters: both backends can run it."""
    from safetensors.numpy import load_file

    tokens = [*map(chr, range(33, 93)), "AB", "Ġ", "Ċ", "</s>"]
    _write_gguf(file, tokens, load_file(llama / "model.safetensors"), width=32, layers=2, merges=["A B"], special=1)


#: The end of an answer in a script.
END = "\0"
#: The chat template of `scripted_gguf`. It refuses a system turn that is not the first one.
SCRIPTED_CHAT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and not loop.first %}{{ raise_exception('the system turn must be first') }}"
    "{% endif %}<|im_start|>{{ message['role'] + '\\n' + message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def scripted_gguf(file: Path, *scripts: str, chat: str | None = SCRIPTED_CHAT) -> None:
    """A model whose answers are known: after each byte of a script comes the next one; END ends the answer.

    Each byte is a token, and a byte in no script repeats. Embeddings are one-hot, attention and feed-forward add
    nothing, and the output layer holds the successors: the next token is 17 nats likelier than any other one.
    """
    import numpy as np

    characters = _byte_characters()
    tokens = [*(characters[byte] for byte in range(256)), "þÿ", "<|im_start|>", "<|im_end|>"]
    follows = dict(zip(range(len(tokens)), range(len(tokens)), strict=True))
    for script in scripts:
        follows |= dict(pairwise(script.encode(errors="surrogateescape")))
    width = 288
    successors = np.zeros((len(tokens), width), np.float32)
    for this, following in follows.items():
        successors[len(tokens) - 1 if following == ord(END) else following, this] = 1
    square = np.zeros((width, width), np.float32)
    weights = {
        "model.embed_tokens.weight": np.eye(len(tokens), width, dtype=np.float32),
        "lm_head.weight": successors,
        "model.norm.weight": np.ones(width, np.float32),
        "model.layers.0.input_layernorm.weight": np.ones(width, np.float32),
        "model.layers.0.post_attention_layernorm.weight": np.ones(width, np.float32),
        "model.layers.0.self_attn.k_proj.weight": square[: width // 2],
        "model.layers.0.self_attn.v_proj.weight": square[: width // 2],
    }
    for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        weights[f"model.layers.0.{part}.weight"] = square
    _write_gguf(
        file, tokens, weights, width=width, layers=1, inner=width, special=2, chat=chat, context=512, merges=["þ ÿ"]
    )


def _byte_characters() -> dict[int, str]:
    """The character that stands for each byte in a tokenizer of GPT-2."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(others)}


def _write_gguf(
    file: Path,
    tokens: list[str],
    weights: Mapping[str, Any],
    *,
    width: int,
    layers: int,
    merges: list[str],
    inner: int = 64,
    special: int = 0,
    chat: str | None = None,
    context: int = 128,
) -> None:
    """A Llama of four heads as GGUF. `weights`: by their names in transformers; the last `special` tokens are control
    tokens, the very last one ends an answer."""
    import gguf
    import numpy as np

    head = width // 4
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - special) + [3] * special)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    if chat:
        writer.add_chat_template(chat)
    for name, loaded in weights.items():
        part, block, stored = name.removeprefix("model.").removesuffix(".weight"), "", loaded
        if part.startswith("layers."):
            _, layer, part = part.split(".", 2)
            block = f"blk.{layer}."
        # GGUF interleaves the two halves that a rotary embedding rotates.
        for projection, heads in (("self_attn.q_proj", 4), ("self_attn.k_proj", 2)):
            if part == projection:
                stored = loaded.reshape(heads, 2, head // 2, width).swapaxes(1, 2).reshape(loaded.shape)
        writer.add_tensor(f"{block}{_IN_GGUF[part]}.weight", np.ascontiguousarray(stored, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
