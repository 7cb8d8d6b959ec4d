"""Graphs with open dimensions: makers of ONNX models and of inputs for given sizes.

Each entry of MODELS is (name, make, ranges, feeds): make(path) writes the file, or is the path of a fixture below the folder
of models; ranges bounds the symbols; feeds(sizes, rng) makes the inputs.
"""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F32, F16 = TensorProto.FLOAT, TensorProto.FLOAT16
NUMPY = {F32: np.float32, F16: np.float16}


def weight(rng, name, shape, dtype=np.float32):
    return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(max(shape[0], 1))).astype(dtype), name)


def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)


def info(name, shape, dtype=F32):
    return helper.make_tensor_value_info(name, dtype, shape)


def make_matmul(path):
    """Rows of an open number times a constant, with bias; in half precision."""
    rng = np.random.default_rng(1)
    save(path, [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])],
         [info("x", ["batch", "seq", 768], F16)], [info("y", ["batch", "seq", 1024], F16)],
         [weight(rng, "w", (768, 1024), np.float16), weight(rng, "b", (1024,), np.float16)])


def make_heads(path):
    """A matrix for each head, as of latent attention: rows of all sequences are those of one product where a step has one."""
    rng = np.random.default_rng(4)
    save(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [info("x", ["batch", 16, "seq", 128], F16)],
         [info("y", ["batch", 16, "seq", 512], F16)], [weight(rng, "w", (16, 128, 512), np.float16)])


def make_product(path):
    """Both operands open in every dimension."""
    save(path, [helper.make_node("MatMul", ["a", "b"], ["y"])],
         [info("a", ["batch", "m", "k"], F16), info("b", ["batch", "k", "n"], F16)], [info("y", ["batch", "m", "n"], F16)])


def make_softmax(path):
    save(path, [helper.make_node("Softmax", ["x"], ["y"], axis=-1)], [info("x", ["rows", "cols"])], [info("y", ["rows", "cols"])])


def make_elementwise(path):
    """A chain with a row broadcast and two results, one of them transposed."""
    save(path, [helper.make_node("Mul", ["x", "scale"], ["a"]), helper.make_node("Sigmoid", ["a"], ["s"]),
                helper.make_node("Mul", ["a", "s"], ["y"]), helper.make_node("Transpose", ["y"], ["t"], perm=[1, 0])],
         [info("x", ["rows", "cols"]), info("scale", ["cols"])], [info("y", ["rows", "cols"]), info("t", ["cols", "rows"])])


def make_norm(path):
    """LayerNormalization and a residual sum of a transformer block."""
    rng = np.random.default_rng(2)
    save(path, [helper.make_node("LayerNormalization", ["x", "g", "c"], ["n"], axis=-1), helper.make_node("Add", ["n", "x"], ["y"])],
         [info("x", ["batch", "seq", 512])], [info("y", ["batch", "seq", 512])],
         [weight(rng, "g", (512,)), weight(rng, "c", (512,))])


def make_joined(path):
    """Concat and Slice of open sizes, and shape arithmetic with Reshape."""
    nodes = [helper.make_node("Concat", ["a", "b"], ["c"], axis=1), helper.make_node("Relu", ["c"], ["r"]),
             helper.make_node("Shape", ["a"], ["s"]), helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
             helper.make_node("Unsqueeze", ["n", "first"], ["n1"]), helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
             helper.make_node("Reshape", ["r", "shape"], ["y"])]
    constants = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in (("zero", 0), ("first", [0]), ("rest", [-1]))]
    save(path, nodes, [info("a", ["n", "p", 24]), info("b", ["n", "q", 24])], [info("y", ["n", None])], constants)


def make_cnn(path):
    """Convolution, pooling, residual, mean and a classifier; batch, height and width open."""
    rng = np.random.default_rng(3)
    conv = lambda x, w, y, **kw: helper.make_node("Conv", [x, w, w + "b"], [y], **kw)
    nodes = [conv("x", "w0", "c0", pads=[3, 3, 3, 3], strides=[2, 2]), helper.make_node("Relu", ["c0"], ["r0"]),
             helper.make_node("MaxPool", ["r0"], ["p0"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
             conv("p0", "w1", "c1", pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c1"], ["r1"]),
             conv("r1", "w2", "c2", pads=[1, 1, 1, 1]), helper.make_node("Add", ["c2", "p0"], ["s"]),
             helper.make_node("Relu", ["s"], ["r2"]), helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
             helper.make_node("Flatten", ["g"], ["f"]), helper.make_node("Gemm", ["f", "wf", "bf"], ["y"])]
    weights = [weight(rng, "w0", (64, 3, 7, 7)), weight(rng, "w1", (64, 64, 3, 3)), weight(rng, "w2", (64, 64, 3, 3)),
               weight(rng, "wf", (64, 100)), weight(rng, "bf", (100,))]
    weights += [weight(rng, f"w{i}b", (64,)) for i in range(3)]
    save(path, nodes, [info("x", ["batch", 3, "h", "w"])], [info("y", ["batch", 100])], weights)


def make_block(path):
    """A transformer block: products, attention over heads, gated feed-forward."""
    rng = np.random.default_rng(4)
    d, heads, f = 256, 4, 704
    shape = numpy_helper.from_array(np.array([0, 0, heads, d // heads], np.int64), "split")
    back = numpy_helper.from_array(np.array([0, 0, d], np.int64), "join")
    scale = numpy_helper.from_array(np.array(1 / np.sqrt(d // heads), np.float16), "scale")
    nodes = []
    for t in "qkv":
        nodes += [helper.make_node("MatMul", ["x", "w" + t], [t]), helper.make_node("Reshape", [t, "split"], [t + "h"]),
                  helper.make_node("Transpose", [t + "h"], [t + "t"], perm=[0, 2, 3, 1] if t == "k" else [0, 2, 1, 3])]
    nodes += [helper.make_node("MatMul", ["qt", "kt"], ["s"]), helper.make_node("Mul", ["s", "scale"], ["ss"]),
              helper.make_node("Softmax", ["ss"], ["p"], axis=-1), helper.make_node("MatMul", ["p", "vt"], ["o"]),
              helper.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]), helper.make_node("Reshape", ["ot", "join"], ["oj"]),
              helper.make_node("MatMul", ["oj", "wo"], ["a"]), helper.make_node("Add", ["a", "x"], ["h"]),
              helper.make_node("MatMul", ["h", "wg"], ["g"]), helper.make_node("Sigmoid", ["g"], ["gs"]),
              helper.make_node("Mul", ["g", "gs"], ["gg"]), helper.make_node("MatMul", ["h", "wu"], ["u"]),
              helper.make_node("Mul", ["gg", "u"], ["m"]), helper.make_node("MatMul", ["m", "wd"], ["dn"]),
              helper.make_node("Add", ["dn", "h"], ["y"])]
    weights = [weight(rng, "w" + t, (d, d), np.float16) for t in "qkvo"]
    weights += [weight(rng, "wg", (d, f), np.float16), weight(rng, "wu", (d, f), np.float16), weight(rng, "wd", (f, d), np.float16)]
    save(path, nodes, [info("x", ["batch", "seq", d], F16)], [info("y", ["batch", "seq", d], F16)], weights + [shape, back, scale])


def floats(dtype, **shapes):
    return lambda s, rng: {n: rng.standard_normal([s.get(d, d) for d in shape]).astype(dtype) for n, shape in shapes.items()}


def tokens(vocabulary, batch, seq, *names):
    """input_ids, attention_mask of ones, then further integer inputs of zeros or positions."""
    def make(s, rng):
        n, t = s[batch], s[seq]
        out = {"input_ids": rng.integers(0, vocabulary, (n, t)), "attention_mask": np.ones((n, t), np.int64)}
        for name in names:
            out[name] = np.zeros((n, t), np.int64)
        return out
    return make


def cached_tokens(vocabulary, batch, seq, past, heads, size, layers, total=None):
    """A step of a language model behind `past` rows of its cache."""
    def make(s, rng):
        n, t, p = s[batch], s[seq], s[past]
        out = {"input_ids": rng.integers(0, vocabulary, (n, t)), "attention_mask": np.ones((n, p + t), np.int64),
               "position_ids": np.tile(np.arange(p, p + t), (n, 1))}
        for i in range(layers):
            for kind in ("key", "value"):
                out[f"past_key_values.{i}.{kind}"] = rng.standard_normal((n, heads, p, size)).astype(np.float32)
        return out
    return make


MODELS = [
    ("matmul", make_matmul, {"batch": (1, 8), "seq": (1, 512)}, floats(np.float16, x=("batch", "seq", 768))),
    ("product", make_product, {"batch": (1, 4), "m": (1, 300), "k": (1, 200), "n": (1, 300)},
     floats(np.float16, a=("batch", "m", "k"), b=("batch", "k", "n"))),
    ("softmax", make_softmax, {"rows": (1, 700), "cols": (1, 20000)}, floats(np.float32, x=("rows", "cols"))),
    ("elementwise", make_elementwise, {"rows": (2, 600), "cols": (2, 3000)}, floats(np.float32, x=("rows", "cols"), scale=("cols",))),
    ("heads", make_heads, {"batch": (2, 48), "seq": (1, 3)}, floats(np.float16, x=("batch", 16, "seq", 128))),
    ("norm", make_norm, {"batch": (1, 8), "seq": (1, 512)}, floats(np.float32, x=("batch", "seq", 512))),
    ("joined", make_joined, {"n": (1, 16), "p": (1, 200), "q": (1, 300)}, floats(np.float32, a=("n", "p", 24), b=("n", "q", 24))),
    ("cnn", make_cnn, {"batch": (1, 3), "h": (32, 160), "w": (32, 160)}, floats(np.float32, x=("batch", 3, "h", "w"))),
    ("block", make_block, {"batch": (1, 4), "seq": (1, 300)}, floats(np.float16, x=("batch", "seq", 256))),
    ("bert", "bert-tiny-optimum", {"batch_size": (1, 6), "sequence_length": (2, 60)},
     tokens(100, "batch_size", "sequence_length", "token_type_ids")),
    ("bert_fused", "bert-tiny-ortfused", {"batch_size": (1, 6), "sequence_length": (2, 60)},
     tokens(100, "batch_size", "sequence_length", "token_type_ids")),
    ("llama", "llama-dynamo-op18", {"batch": (1, 4), "sequence": (2, 64), "past": (1, 64)},
     cached_tokens(320, "batch", "sequence", "past", 2, 16, 2)),
]
