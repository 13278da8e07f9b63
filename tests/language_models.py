"""A language model small enough to be made by a test: a Llama of random weights, and a tokenizer of 60 words."""

from __future__ import annotations

from pathlib import Path

WORDS = [f"w{number}" for number in range(60)]
#: A chat, put as its words.
CHAT = "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}"


def tiny_llama(folder: Path, chat: bool = False, tied: bool = False) -> Path:
    """`folder` with config.json, model.safetensors and a tokenizer; it never says that it is done."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<pad>", "</s>", "user", *WORDS]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
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
            vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.5, tie_word_embeddings=tied,
            bos_token_id=None, eos_token_id=None, pad_token_id=1,
        )
    )  # fmt: skip
    network.save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder
