"""Recurrent, stateful, signal and Einsum operators with random attributes on the emulated cores, against onnxruntime or
onnx's reference.

usage: test_recipes.py [ROUNDS] [SEED]; exit code 1 when a case fails, 77 when onnxruntime is not installed."""
import random
import sys

import numpy as np
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from npuc import NpucError, backend

try:
    import onnxruntime as ort
except ImportError:
    sys.exit(77)

ort.set_default_logger_severity(4)
MS = "com.microsoft"


class Maker:
    """Random numbers and models of one node."""

    def __init__(self, seed):
        self.pick, self.rng = random.Random(seed), np.random.default_rng(seed)

    def real(self, *shape):
        return self.rng.standard_normal(shape).astype(np.float32)

    def chance(self, p):
        return self.pick.random() < p

    def maybe(self, p, *shape):
        return self.real(*shape) if self.chance(p) else None

    def model(self, op, inputs, outputs, attrs, domain="", opset=22, constants=()):
        """The model and what it is fed; inputs whose numbers are in `constants` are stored in it."""
        while inputs[-1] is None:
            inputs = inputs[:-1]
        names = [f"x{i}" if a is not None else "" for i, a in enumerate(inputs)]
        results = [f"y{i}" for i in range(outputs)]
        given = {n: a for i, (n, a) in enumerate(zip(names, inputs)) if n and i not in constants}
        stored = [numpy_helper.from_array(a, n) for i, (n, a) in enumerate(zip(names, inputs)) if n and i in constants]
        graph = helper.make_graph(
            [helper.make_node(op, names, results, domain=domain, **attrs)], "g",
            [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in given.items()],
            [helper.make_empty_tensor_value_info(n) for n in results], stored)
        opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        return helper.make_model(graph, opset_imports=opsets, ir_version=10), given


def recurrent(m):
    op = m.pick.choice(["RNN", "GRU", "LSTM"])
    gates, acts = {"RNN": (1, 1), "GRU": (3, 2), "LSTM": (4, 3)}[op]
    steps, batch, width, hidden = m.pick.choice([1, 2, 5, 19]), m.pick.choice([1, 3]), m.pick.choice([2, 5]), m.pick.choice([1, 4, 7])
    way = m.pick.choice(["forward", "reverse", "bidirectional"])
    ways = 2 if way == "bidirectional" else 1
    lengths = m.rng.integers(1, steps + 1, batch).astype(np.int32) if m.chance(0.5) else None
    inputs = [m.real(steps, batch, width), m.real(ways, gates * hidden, width) / 2, m.real(ways, gates * hidden, hidden) / 2,
              m.maybe(0.6, ways, 2 * gates * hidden), lengths, m.maybe(0.5, ways, batch, hidden)]
    attrs = {"direction": way, "hidden_size": hidden}
    if op == "LSTM":
        inputs += [m.maybe(0.5, ways, batch, hidden), m.maybe(0.4, ways, 3 * hidden)]
        attrs["input_forget"] = int(m.chance(0.3))
    if op == "GRU":
        attrs["linear_before_reset"] = int(m.chance(0.5))
    if m.chance(0.3):
        attrs["clip"] = m.pick.choice([0.3, 1.0, 3.0])
    if m.chance(0.4):  # bounded ones: others blow up within some steps
        names = [m.pick.choice(["Tanh", "Sigmoid", "HardSigmoid", "Softsign", "ScaledTanh"]) for _ in range(acts * ways)]
        alpha, beta = {"HardSigmoid": 0.2, "ScaledTanh": 0.9}, {"HardSigmoid": 0.45, "ScaledTanh": 0.7}
        attrs["activations"] = names
        if any(n in alpha for n in names):
            attrs["activation_alpha"] = [alpha[n] for n in names if n in alpha]
            attrs["activation_beta"] = [beta[n] for n in names if n in beta]
    constants = (1, 2, 3) if m.chance(0.5) else ()
    return m.model(op, inputs, 3 if op == "LSTM" else 2, attrs, opset=m.pick.choice([14, 22]), constants=constants), True


def linear_attention(m):
    domain, rule = m.pick.choice(["", MS]), m.pick.choice(["linear", "gated", "delta", "gated_delta"])
    batch, tokens, heads, dk, dv = m.pick.choice([1, 2]), m.pick.choice([1, 3, 18]), m.pick.choice([1, 2, 4]), 8, 6
    queries = heads // 2 if domain and heads > 1 and m.chance(0.3) else heads * m.pick.choice([1, 2])
    inputs = [m.real(batch, tokens, queries * dk), m.real(batch, tokens, heads * dk) / 3, m.real(batch, tokens, heads * dv),
              m.maybe(0.6, batch, heads, dk, dv),
              -abs(m.real(batch, tokens, m.pick.choice([heads, heads * dk]))) if "gated" in rule else None,
              abs(m.real(batch, tokens, m.pick.choice([heads, 1]))) / 2 if "delta" in rule else None]
    attrs = {"q_num_heads": queries, "kv_num_heads": heads, "update_rule": rule, "scale": m.pick.choice([0.0, 0.5])}
    return m.model("LinearAttention", inputs, 2, attrs, domain, 21 if domain else 27), bool(domain)


def causal_conv(m):
    domain, channels, size, kernel = m.pick.choice(["", MS]), m.pick.choice([3, 8]), m.pick.choice([1, 2, 7]), m.pick.choice([1, 2, 4])
    attrs, dilation = {"activation": m.pick.choice(["none", "silu", "swish"])}, 1
    if domain:
        dilation = attrs["dilation"] = m.pick.choice([1, 2])
        attrs["channels_last"] = m.pick.choice([0, 1])
    x, state = m.real(2, channels, size), m.maybe(0.6, 2, channels, (kernel - 1) * dilation)
    if attrs.get("channels_last"):
        x, state = (a if a is None else np.ascontiguousarray(a.swapaxes(1, 2)) for a in (x, state))
    inputs = [x, m.real(channels, 1, kernel), m.maybe(0.5, channels), state]
    return m.model("CausalConvWithState", inputs, 2, attrs, domain, 21 if domain else 27), bool(domain)


def gates_and_norms(m):
    if m.chance(0.5):
        return m.model("LinearAttentionGate", [m.real(2, 3, 4), m.real(4), -abs(m.real(4)), m.real(2, 3, 4)], 2, {}, MS), True
    attrs = {"activation": m.pick.choice(["silu", "sigmoid"])}
    return m.model("GatedRMSNorm", [m.real(2, 3, 12), m.real(4), m.real(2, 3, 12)], 1, attrs, MS), True


def delta_net(m):
    rule, batch, tokens, queries, dk, dv = m.pick.choice(["linear", "gated", "delta", "gated_delta"]), 2, m.pick.choice([1, 4]), m.pick.choice([1, 2]), 8, 6
    heads, rows = queries * m.pick.choice([1, 2]), batch * tokens
    gate = m.pick.choice(["none", "softplus", "sigmoid"]) if "gated" in rule else "none"
    attrs = {"update_rule": rule, "qk_l2_norm": m.pick.choice([0, 1]), "gate_activation": gate, "beta_activation": "sigmoid"}
    wide = m.chance(0.4)
    parts = [m.real(rows, queries, dk), m.real(rows, queries, dk) / 3, m.real(rows, heads, dv)]
    decay = -abs(m.real(rows, heads, dk) if wide else m.real(rows, heads)) if "gated" in rule else None
    beta = m.real(rows, heads) if "delta" in rule else None
    form = m.pick.choice(["tokens", "batches", "packed"])
    if form == "batches":
        parts = [a.reshape(batch, tokens, *a.shape[1:]) for a in parts]
        decay, beta = (a if a is None else a.reshape(batch, tokens, *a.shape[1:]) for a in (decay, beta))
    elif form == "packed":
        parts = [np.concatenate([a.reshape(rows, -1) for a in parts], 1), None, None]
    vectors = [m.real(heads), m.real(heads, dk) if wide and m.chance(0.5) else m.real(heads)] if gate != "none" else [None, None]
    inputs = parts + [None, decay, beta, m.real(batch, heads, dv, dk)] + vectors
    return m.model("GatedDeltaNet", inputs, 2, attrs, MS, 21), True


EQUATIONS = ("bij,bjk->bik ij,jk bhid,bhjd->bhij i,j->ij ii->i bii->bi ...ij,...jk->...ik ij->ji ijk->i bij,bjk,bkl->bil ij,ij-> bi,bo,oi->b "
             "...d,d->... a,b,c->cba bxhwc,ch->bxw ab,cd->acbd abc,ac->b i-> bi,bi,bj->bj iij,jk->ik").split()


def einsum(m):
    equation = m.pick.choice(EQUATIONS)
    size = {c: m.pick.choice([1, 2, 3, 4]) for c in "abcdefghijklmnopqrstuvwxyz"}
    terms = equation.split("->", maxsplit=1)[0].split(",")
    shapes = [[2, 3] * term.startswith("...") + [size[c] for c in term if c != "."] for term in terms]
    return m.model("Einsum", [m.real(*s) for s in shapes], 1, {"equation": equation}, opset=12), True


def dft(m):
    shape = [m.pick.choice([2, 5, 6, 8, 12, 30]) for _ in range(m.pick.choice([1, 2, 3]))] + [m.pick.choice([1, 2])]
    axis, onesided, inverse = m.pick.randrange(len(shape) - 1), m.chance(0.4), m.chance(0.4)
    if onesided:
        shape[-1] = 2 if inverse else 1
    length = 2 * (shape[axis] - 1) if onesided and inverse else shape[axis] + m.pick.choice([-1, 0, 3])
    inputs = [m.real(*shape), np.array(length, np.int64), np.array(axis, np.int64)]
    attrs = {"inverse": int(inverse), "onesided": int(onesided)}
    return m.model("DFT", inputs, 1, attrs, opset=20, constants=(1, 2) if m.chance(0.7) else ()), False


def stft(m):
    length, frame, step, parts = m.pick.choice([64, 100, 129]), m.pick.choice([8, 16, 25]), m.pick.choice([4, 7, 8]), m.pick.choice([1, 2])
    inputs = [m.real(2, length, parts), np.array(step, np.int64), m.maybe(0.6, frame), np.array(frame, np.int64)]
    attrs = {"onesided": int(parts == 1 and m.chance(0.7))}
    return m.model("STFT", inputs, 1, attrs, opset=17, constants=(1, 3) if m.chance(0.7) else ()), False


def differs(model, feed, by_runtime):
    """What is wrong, or None."""
    if by_runtime:
        want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
    else:
        want = ReferenceEvaluator(model).run(None, feed)
    try:
        got = backend.prepare(model, check=False, precision="fp32").run(feed)
    except NpucError as e:
        return str(e)
    for i, (a, b) in enumerate(zip(got, want)):
        if a.shape != b.shape or not np.allclose(a, b, rtol=3e-4, atol=1e-4, equal_nan=True):
            return f"output {i}: {a.shape} {b.shape} {np.abs(a - b).max() if a.shape == b.shape else ''}"
    return None


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    failed = cases = 0
    for make in (recurrent, linear_attention, causal_conv, gates_and_norms, delta_net, einsum, dft, stft):
        for k in range(rounds):
            (model, feed), by_runtime = make(Maker(1000 * seed + k))
            fault = differs(model, feed, by_runtime)
            cases += 1
            if fault:
                failed += 1
                print(f"{make.__name__} {k} (seed {seed}): {fault}\n  {helper.printable_node(model.graph.node[0])}")
    print(f"{cases - failed} of {cases} cases agree")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
