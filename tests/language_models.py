"""A language model small enough for a test to make: a Llama with random weights, and a tokenizer of 60 words."""

from __future__ import annotations

from pathlib import Path

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
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    tokens = [*map(chr, range(33, 93)), "AB", "Ġ", "Ċ", "</s>"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["A B"])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    for name, loaded in load_file(llama / "model.safetensors").items():
        part, block, weights = name.removeprefix("model.").removesuffix(".weight"), "", loaded
        if part.startswith("layers."):
            _, layer, part = part.split(".", 2)
            block = f"blk.{layer}."
        # GGUF interleaves the two halves that a rotary embedding rotates.
        for projection, heads in (("self_attn.q_proj", 4), ("self_attn.k_proj", 2)):
            if part == projection:
                weights = loaded.reshape(heads, 2, 4, 32).swapaxes(1, 2).reshape(loaded.shape)
        stored = f"{block}{_IN_GGUF[part]}.weight"
        writer.add_tensor(stored, np.ascontiguousarray(weights, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
