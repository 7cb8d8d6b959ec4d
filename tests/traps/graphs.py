"""Traps of graphs: absent operands, order, scopes, names, functions, domains, stored data, loose files."""
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import npuc
from traps import TARGET, equal, f32, fails, i64, nodes, oracle, refused, run, same, text

MS = [("com.microsoft", 1)]


def absent_inputs():
    x = f32(3, 4)
    high = np.float32(0.5)
    same(text("g (float[n, 4] x, float high) => (float[n, 4] y) { y = Clip(x, , high) }"), {"x": x, "high": high})
    same(text("g (float[n, 4] x, float high) => (float[n, 4] y) { y = Clip(x, high) }"), {"x": x, "high": high})
    same(text("g (float[n, 4] x) => (float[n, 4] y) { y = Clip(x, , ) }"), {"x": x}, [x])
    image = f32(1, 2, 4, 4)
    for roi, weights in (("", {}), ("roi", {"roi": np.zeros(0, np.float32)})):
        m = text(f"g (float[n, 2, h, w] x) => (float[a, b, c, d] y) {{ y = Resize<mode = \"linear\">(x, {roi}, scales) }}",
                 weights={"scales": np.float32([1, 1, 2, 2]), **weights})
        same(m, {"x": image})
        m = text(f"g (float[n, 2, h, w] x) => (float[a, b, c, d] y) {{ y = Resize<mode = \"nearest\">(x, {roi}, , sizes) }}",
                 weights={"sizes": i64(1, 2, 6, 2), **weights})
        same(m, {"x": image})
    for rows in (["x", ""], ["", "x"], ["x"]):
        refused(nodes([helper.make_node("Add", rows, ["y"])], {"x": (1, ["n", 4])}, {"y": (1, ["n", 4])}), "Add", "input")


def absent_outputs():
    """An empty output name is nobody's value: two nodes may have it, and no empty input is bound to it."""
    x, w = f32(2, 3, 8), f32(8)
    rows = [helper.make_node("SkipSimplifiedLayerNormalization", ["x", "x", "w"], ["a", "", "", "s"], "n", domain="com.microsoft"),
            helper.make_node("SkipSimplifiedLayerNormalization", ["a", "s", "w"], ["b", "", "", "t"], "n", domain="com.microsoft"),
            helper.make_node("Dropout", ["t"], ["d", ""], ""), helper.make_node("MaxPool", ["d"], ["at", ""], "", kernel_shape=[2]), helper.make_node("Clip", ["b", "", "top"], ["y"], "")]
    m = nodes(rows, {"x": (1, ["n", 3, 8])}, {"y": (1, ["n", 3, 8]), "at": (1, ["n", 3, 7])}, domains=MS,
              weights={"w": w, "top": np.float32(0.5)})
    got = run(m, {"x": x})
    for n in m.graph.node:
        n.name = "" # onnxruntime wants different ones
    equal(got, oracle(m, {"x": x}))
    m = nodes([helper.make_node("LSTM", ["x", "w", "r", "", "", "h"], ["", "last"], hidden_size=4)],
              {"x": (1, [3, 2, 5]), "h": (1, [1, 2, 4])}, {"last": (1, [1, 2, 4])}, weights={"w": f32(1, 16, 5), "r": f32(1, 16, 4)})
    same(m, {"x": f32(3, 2, 5), "h": f32(1, 2, 4)}, atol=1e-5)


def rms_norm_in_the_default_domain():
    x, w = f32(2, 3, 8), f32(8)
    for opset in (14, 17, 21):
        m = nodes([helper.make_node("SimplifiedLayerNormalization", ["x", "w"], ["y", "r"], axis=-1, epsilon=1e-6)],
                  {"x": (1, ["n", 3, 8])}, {"y": (1, ["n", 3, 8]), "r": (1, ["n", 3, 1])}, opset=opset, weights={"w": w})
        r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-6))
        same(m, {"x": x}, [x * r * w, r])


UNSORTED = """g (bool c, float[n, 4] x) => (float[n, 4] y) {
    y = Add(b, z)
    z = If (c) <then_branch = t () => (float[n, 4] q) { q = Neg(p)  p = Mul(b, late) },
                else_branch = e () => (float[n, 4] s) { s = Abs(late) }>
    late = Mul(b, b)
    b = Relu(x) }"""


def nodes_out_of_order():
    x = f32(2, 4)
    b = np.maximum(x, 0)
    for c in (True, False):
        plan = npuc.compile(text(UNSORTED), target=TARGET)
        assert "not in topological order" in plan.messages, plan.messages
        with npuc.Session(plan) as s:
            equal(s.run(None, {"c": np.bool_(c), "x": x}), [b + (-(b * (b * b)) if c else np.abs(b * b))])
    refused(text("g (float[4] x) => (float[4] y) { y = Add(x, z)  z = Neg(y) }"), "cycle")


CAPTURE = """g (int64 trips, float[n, 4] x) => (float[n, 4] y, float[k, n, 4] all) {
    two = Constant<value = float {2.0}>()  on = Constant<value = bool {1}>()  a = Mul(x, two)
    y, all = Loop (trips, on, x) <body = turn (int64 i, bool go, float[n, 4] v) => (bool more, float[n, 4] w, float[n, 4] a) {
        more = Identity(go)  f = Cast<to = 1>(i)  odd = Mod<fmod = 1>(f, two)  is = Cast<to = 9>(odd)
        w = If (is) <then_branch = t () => (float[n, 4] q) { p = Mul(a, f)  q = Add(p, v) }, else_branch = e () => (float[n, 4] v) { }>
    }> }"""


def captured_values():
    """Bodies read every scope around them, return values of it directly, and note types of captured names."""
    m = text(CAPTURE)
    body = m.graph.node[3].attribute[0].g
    body.value_info.append(helper.make_tensor_value_info("two", 1, []))
    x = f32(2, 4)
    for trips in (0, 1, 4):
        v = x.copy()
        for i in range(trips):
            v = v + x * 2 * np.float32(i) if i % 2 else v
        same(m, {"trips": np.int64(trips), "x": x}, [v, np.array([x * 2] * trips, np.float32).reshape(trips, 2, 4)])
    m = text("""g (bool c, float[2] x, float[2] z) => (float[2] y, float[2] x) {
        y = If (c) <then_branch = t () => (float[2] x) { }, else_branch = e () => (float[2] z) { }> }""")
    for c in (True, False):
        a, b = f32(2), f32(2)
        same(m, {"c": np.bool_(c), "x": a, "z": b}, [a if c else b, a])


def repeated_names():
    """Sibling bodies share names; an inner name hides an outer one; node names mean nothing."""
    m = text("""g (bool c, float[2] x) => (float[2] y) {
        t = Neg(x)
        u = If (c) <then_branch = b () => (float[2] r) { k = Constant<value = float {3.0}>()  r = Mul(t, k) },
                    else_branch = b () => (float[2] r) { k = Constant<value = float {5.0}>()  r = Mul(t, k) }>
        y = Add(u, t) }""")
    for n in m.graph.node:
        n.name = "same"
    x = f32(2)
    for c in (True, False):
        same(m, {"c": np.bool_(c), "x": x}, [-x * (3 if c else 5) - x])
    for a in m.graph.node[1].attribute: # the inner definition of t wins
        a.g.node[0].output[0] = a.g.node[1].input[0] = "t"
        a.g.node[1].input[1] = "x"
    for c in (True, False):
        same(m, {"c": np.bool_(c), "x": x}, [x * (3 if c else 5) - x])
    for i, a in enumerate(m.graph.node[1].attribute): # initializers of the same name in both bodies
        del a.g.node[0]
        a.g.initializer.append(numpy_helper.from_array(np.float32(3 + 2 * i), "t"))
    for c in (True, False):
        then_first = m.graph.node[1].attribute[0].name == "then_branch"
        same(m, {"c": np.bool_(c), "x": x}, [x * (3 if c == then_first else 5) - x])
    refused(text("g (float[2] x) => (float[2] y) { t = Neg(x)  t = Abs(x)  y = Relu(t) }"), "'t'")


def initializers_among_inputs():
    """An input with an initializer need not be given, in files of every age."""
    x, w = f32(3, 4), f32(4, 2)
    for ir in (3, 4, 8, 10):
        m = text("g (float[n, 4] x, float[4, 2] w) => (float[n, 2] y) { y = MatMul(x, w) }", opset=13 if ir > 6 else 8, ir=ir, weights={"w": w})
        plan = npuc.compile(m, target=TARGET)
        with npuc.Session(plan) as s:
            assert [a.name for a in s.get_inputs()] == ["x"]
            equal(s.run(None, {"x": x}), [x @ w])
    m = text("g (float[n, 4] x) => (float[n, 2] y) { y = MatMul(x, w) }", weights={"w": w})
    same(m, {"x": x}, [x @ w])


def external(name, array, d, file, offset=None, length=None):
    t = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), data_location=1)
    for k, v in (("location", file), ("offset", offset), ("length", length)):
        if v is not None:
            t.external_data.add(key=k, value=str(v))
    with open(d / file, "r+b" if (d / file).exists() else "w+b") as f:
        f.seek(offset or 0)
        f.write(array.tobytes())
    return t


def external_data(d):
    """Several files, no offset or length, shared bytes, tensors of attributes and bodies, an offset beyond 4 GiB."""
    x, a, b = f32(3), f32(3), f32(3)
    m = text("""g (bool c, float[3] x) => (float[3] y) {
        k = Constant<value = float[3] {0.0, 0.0, 0.0}>()
        s = If (c) <then_branch = t () => (float[3] r) { r = Mul(x, inner) }, else_branch = e () => (float[3] q) { q = Neg(x) }>
        u = Mul(s, a)  v = Add(u, b)  w = Sub(v, far)  y = Mul(w, k) }""")
    k, inner, far = f32(3), f32(3), f32(3)
    m.graph.initializer.extend([external("a", a, d, "one.bin"), external("b", b, d, "two.bin", 64, 12),
                                external("far", far, d, "far.bin", 5 << 30, 12)])
    m.graph.node[0].attribute[0].t.CopyFrom(external("", k, d, "two.bin", 128))
    os.truncate(d / "two.bin", 140)
    body = next(at.g for at in m.graph.node[1].attribute if at.name == "then_branch")
    body.initializer.append(external("inner", inner, d, "two.bin", 70, 12))
    path = d / "external.onnx"
    path.write_bytes(m.SerializeToString())
    b = np.frombuffer((d / "two.bin").read_bytes()[64:76], np.float32) # two ranges share bytes
    os.truncate(d / "far.bin", (5 << 30) + 12)
    for c in (True, False):
        equal(run(path, {"c": np.bool_(c), "x": x}), [((x * inner if c else -x) * a + b - far) * k])
    for location, words in (("../out.bin", "'../out.bin'"), ("/etc/hostname", "/etc/hostname"), ("absent.bin", "does not exist"),
                            ("link.bin", "link.bin")):
        t = m.graph.initializer[0]
        t.external_data[0].value = location
        if location == "link.bin":
            os.symlink(d / "two.bin", d / "link.bin")
        path.write_bytes(m.SerializeToString())
        fails(3, [words, "'a'"], npuc.compile, path, target=TARGET)
    for offset, length in ((128, 13), (132, 12), (-4, 12), (1 << 62, 12), (0, 8)):
        del m.graph.initializer[0].external_data[:]
        for key, v in (("location", "two.bin"), ("offset", offset), ("length", length)):
            m.graph.initializer[0].external_data.add(key=key, value=str(v))
        path.write_bytes(m.SerializeToString())
        fails(3, ["'a'"], npuc.compile, path, target=TARGET)


def varint(v):
    out = bytearray()
    while v > 127:
        out.append(v & 127 | 128)
        v >>= 7
    return bytes(out + bytes([v]))


def near_two_gib(d):
    """A file as large as protobuf allows: its weights are mapped where they are. One larger is refused with advice."""
    def write(path, size):
        m = text("g (int64[k] i) => (uint8[k] y) { w = Slice(big, from, to)  y = Gather(w, i) }", weights={"from": i64(size - 3), "to": i64(size)})
        rest = m.graph.SerializeToString()
        head = TensorProto(name="big", dims=[size], data_type=2).SerializeToString() + b"\x4a" + varint(size)
        tensor = varint(len(head) + size)
        with open(path, "wb") as f: # sparse: the weights are a hole but for the end
            f.write(b"\x08\x0a\x42\x02\x10\x12\x3a" + varint(len(rest) + 1 + len(tensor) + len(head) + size) + rest + b"\x2a" + tensor + head)
            f.seek(size - 3, os.SEEK_CUR)
            f.write(bytes([7, 8, 9]))
        return path
    equal(run(write(d / "large.onnx", (1 << 31) - 4096), {"i": i64(2, 0, 1)}), [np.uint8([9, 7, 8])])
    fails(5, ["2147483647", "external data"], npuc.compile, write(d / "large.onnx", 1 << 31), target=TARGET)


OLD = """g (bool c, float[2, 1, 3] x) => (float[] y) {
    s = If (c) <then_branch = t () => (float[2, 3] r) { r = Squeeze<axes = [1]>(x) },
                else_branch = e () => (float[2, 3] r) { q = ReduceSum<axes = [1], keepdims = 0>(x)  low = Constant<value = float {-0.5}>()  r = Clip(q, low) }>
    t = Unsqueeze<axes = [0]>(s)  d = Dropout<ratio = 0.5>(t)  p = Pad(d, pads)  y = Softmax(p) }"""


def old_forms_everywhere():
    """Old forms in the graph, in bodies and in functions are read by the opset that governs each."""
    x = f32(2, 1, 3)
    for c in (True, False):
        same(text(OLD, opset=11, weights={"pads": i64(0, 0, 0, 0, 1, 0)}), {"c": np.bool_(c), "x": x})
    m = text("""g (float[n, 1, 3] x) => (float[a, b] y) { s = my.old(x)  one = Constant<value = int64[1] {1}>()  y = ReduceSum(s, one) }
        <domain: "my", opset_import: ["" : 11]> old (v) => (w) { t = Squeeze<axes = [1]>(v)  w = ReduceSum<axes = [0]>(t) }
        """, opset=18, domains=[("my", 1)])
    same(m, {"x": x}, [x.sum((0, 1, 2)).reshape(1, 1)])
    a, b = f32(2, 3, 4), f32(3)
    m = text("g (float[2, 3, 4] a, float[3] b) => (float[2, 3, 4] y) { y = Add<axis = 1, broadcast = 1>(a, b) }", opset=6, ir=3)
    same(m, {"a": a, "b": b}, [a + b[:, None]])
    m = text("g (float[2, 3, 4] a) => (float[] y) { r = Reshape<shape = [0, -1]>(a)  y = Slice<axes = [1], starts = [-3], ends = [100]>(r) }", opset=1, ir=3)
    same(m, {"a": a}, [a.reshape(2, 12)[:, -3:]])
    m = text('g (float[1, 1, 2, 2] a) => (float[] y) { y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]>(a) }', opset=7, ir=3)
    image = f32(1, 1, 2, 2)
    same(m, {"a": image}, [image.repeat(2, 2).repeat(2, 3)])


FUNCTIONS = """g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = my.outer<slope = 0.25>(x)  z = my.outer(x) }
    <domain: "my", opset_import: ["" : 18, "my" : 1]> outer <slope: float = 0.5>(a) => (b) { t = my.inner<k = @slope>(a)  b = Neg(t) }
    <domain: "my", opset_import: ["" : 14]> inner <k>(a) => (b) { t = LeakyRelu<alpha: float = @k>(a)  b = Add(t, a) }"""


def functions():
    """Nested ones with attributes handed down, defaults, and their own operator sets."""
    x = f32(3, 4)
    leaky = lambda slope: -(np.where(x < 0, x * np.float32(slope), x) + x)
    m = text(FUNCTIONS, domains=[("my", 1)])
    for n in m.functions[0].node[0].attribute:
        n.type, n.ref_attr_name = 1, "slope"
    same(m, {"x": x}, [leaky(0.25), leaky(0.5)])


def overloads():
    m = text("""g (float[n] x) => (float[n] y, float[n] z) { y = my.f(x)  z = my.f(x) }
        <domain: "my", opset_import: ["" : 18]> f (a) => (b) { b = Neg(a) }
        <domain: "my", opset_import: ["" : 18]> f (a) => (b) { b = Abs(a) }""", domains=[("my", 1)])
    m.functions[1].overload = m.graph.node[1].overload = "second"
    x = f32(5)
    same(m, {"x": x}, [-x, np.abs(x)])
    m.graph.node[1].overload = "third"
    refused(m, "f", "my", code=4)


def functions_named_like_operators():
    """A known operator is used instead of a body of its name; an unknown one gets its body."""
    m = text("""g (float[n] x) => (float[n] y, float[n] z) { y = com.microsoft.QuickGelu<alpha = 1.0>(x)  z = com.microsoft.Fancy(x) }
        <domain: "com.microsoft", opset_import: ["" : 18]> QuickGelu (a) => (b) { b = Neg(a) }
        <domain: "com.microsoft", opset_import: ["" : 18]> Fancy (a) => (b) { b = Neg(a) }""", domains=MS)
    x = f32(5)
    same(m, {"x": x}, [x / (1 + np.exp(-x)), -x])


def imports_of_domains():
    """Domains that are imported and not used, unknown or given twice are no obstacle; a node of one is named."""
    extra = [(d, 1) for d in ("com.microsoft.nchwc", "ai.onnx.preview.training", "org.pytorch.aten", "com.example.never", "ai.onnx.ml")]
    x = f32(3)
    m = text("g (float[n] x) => (float[n] y) { y = Relu(x) }", domains=extra)
    m.opset_import.add(domain="com.microsoft", version=1)
    m.opset_import.add(domain="com.microsoft", version=1)
    same(m, {"x": x}, [np.maximum(x, 0)])
    m.graph.node[0].domain = "ai.onnx"
    same(m, {"x": x}, [np.maximum(x, 0)])
    m.opset_import[0].domain = "ai.onnx"
    m.graph.node[0].domain = ""
    same(m, {"x": x}, [np.maximum(x, 0)])
    m = text("g (float[n] x) => (float[n] y) { y = com.microsoft.FastGelu(x) }") # used, never imported
    same(m, {"x": x}, [0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3))], atol=1e-4)
    m = text("g (float[n] x) => (float[n] y) { y = com.example.never.Nope(x) }", domains=extra)
    refused(m, "Nope", "com.example.never", code=4)
    m = text("g (float[n] x) => (float[n] y) { y = Relu(x) }")
    m.opset_import[0].version = 99
    refused(m, "opset version 99", code=4)
    m.opset_import[0].version, m.ir_version = 18, 99
    refused(m, "ir_version is 99", code=4)


def loose_attributes():
    """Attributes without a type, with packed lists, as bool; fields that nobody knows."""
    x = f32(1, 2, 3, 4)
    m = nodes([helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), helper.make_node("LeakyRelu", ["t"], ["u"], alpha=0.5),
               helper.make_node("Concat", ["u", "u"], ["y"], axis=0)], {"x": (1, [1, 2, 3, 4])}, {"y": (1, [2, 3, 4, 2])})
    for n in m.graph.node:
        for a in n.attribute:
            a.ClearField("type")
    t = x.transpose(0, 2, 3, 1)
    want = [np.concatenate([np.where(t < 0, t / 2, t)] * 2)]
    same(m, {"x": x}, want)
    data = m.SerializeToString()
    plain, packed = b"".join(b"\x40" + bytes([v]) for v in (0, 2, 3, 1)), b"\x42\x04\x00\x02\x03\x01"
    at = data.index(plain) # of the same length with an empty doc_string, so that no outer length changes
    assert data[at - 6:at].endswith(b"perm"), data[at - 8:at]
    body = data[:at] + packed + b"\x6a\x00" + data[at + len(plain):] # doc_string = ""
    same(onnx.load_from_string(body), {"x": x}, want)
    plan = npuc.compile(body + b"\xca\x3e\x03abc", target=TARGET) # field 1001
    with npuc.Session(plan) as s:
        equal(s.run(None, {"x": x}), want)
    m = nodes([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=False)], {"x": (1, [1, 2, 3, 4])}, {"y": (1, [])})
    same(m, {"x": x}, [x.sum(dtype=np.float32)])
