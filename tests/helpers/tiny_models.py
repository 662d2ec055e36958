"""Tiny random models, saved as people have them: folders in the hub's layout, with a real tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from engine.backend import load_mlx

TOOLS = "{{ bos_token }}{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
CALLS = "{% for c in m['tool_calls'] or [] %}<tool_call>\n{{ c['function'] | tojson }}\n</tool_call>{% endfor %}"
TURNS = (
    TOOLS
    + "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    + CALLS
    + "<|im_end|>\n{% endfor %}"
)
REPLY = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
THINK = "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
SPECIAL = ["<pad>", "<bos>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<think>", "</think>"]


def write_tokenizer(folder: Path, *, thinks: bool = True) -> int:
    """A byte-level tokenizer without merges: every UTF-8 text, one token a byte. Returns its vocabulary's size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    if thinks:
        tokenizer.add_tokens([AddedToken(text, special=False) for text in TAGS])
    bos = tokenizer.token_to_id("<bos>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<|im_end|>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "chat_template": TURNS + REPLY + (THINK if thinks else ""),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(tokenizer.get_vocab_size())


def write_llama(folder: Path, *, thinks: bool = True, context: int = 512) -> Path:
    """A two-layer Llama with random weights, wide enough that its distribution is not flat."""
    mx = load_mlx()
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.models.llama import Model, ModelArgs

    folder.mkdir(parents=True, exist_ok=True)
    vocab = write_tokenizer(folder, thinks=thinks)
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "eos_token_id": 3,
    }
    mx.random.seed(7)
    model = Model(ModelArgs.from_dict(config))
    params = tree_map(
        lambda p: mx.random.normal(p.shape) * (0.3 if p.ndim > 1 else 0.0) + (p.ndim == 1), model.parameters()
    )
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(params)))
    (folder / "config.json").write_text(json.dumps(config))
    return folder
