"""Onnx graph: a policy as one graph, scaling, networks, mask and temperature included, for other runtimes."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cohort.errors import ArtifactError
from cohort.scaler import LOG_OFFSET
from policy.networks import Network
from policy.served import NetworkPolicy

OPSET, IR = 17, 8
"""What runtimes since 2022 read."""


class _Graph:
    """Nodes and constants being collected; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, to: str | None = None, axis: int | None = None, cast: int = 0) -> str:
        """Add a node; `axis` is reduced over (kept as a column), `cast` is the element type of a Cast."""
        name = to or f"{kind.lower()}_{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [name])
        if axis is not None:
            reduced = {"axes": [axis], "keepdims": 1} if kind == "ReduceMax" else {"axis": axis}
            node.attribute.extend(helper.make_attribute(key, value) for key, value in reduced.items())
        if cast:
            node.attribute.append(helper.make_attribute("to", cast))
        self.nodes.append(node)
        return name

    def constant(self, value: np.ndarray) -> str:
        """Add a constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float, like: type = np.float64) -> str:
        """Add a scalar."""
        return self.constant(np.asarray(value, like))


def graph(policy: NetworkPolicy) -> onnx.ModelProto:
    """The policy as an ONNX model.

    Input `state` (n, d) float32 in clinical units, the features in the order of the metadata's `features`. Outputs
    `probs` (n, n_actions) float32 and, for value learners, `q` (n, n_actions) float32 in reward units. A graph cannot
    refuse a row: one with NaN or infinity, or below what a logarithm takes, gets NaN in every output.
    """
    g = _Graph()
    scaled = _scaled(g, policy)
    broken = g.op("Cast", g.op("Or", g.op("IsNaN", scaled), g.op("IsInf", scaled)), cast=TensorProto.FLOAT)
    readable = g.op("Less", g.op("ReduceMax", broken, axis=1), g.number(0.5, np.float32))
    usual = None if policy.actor is None else _usual(g, policy.actor, policy.temperature, scaled)
    values = None if policy.critic is None else _values(g, policy.critic, policy.reward_scale, scaled)
    nan = g.number(np.nan, np.float32)
    g.op("Where", readable, _probs(g, policy, usual, values), nan, to="probs")
    if values is not None:
        g.op("Where", readable, values, nan, to="q")
    outputs = ["probs"] if values is None else ["probs", "q"]
    made = helper.make_graph(
        g.nodes,
        policy.learner,
        [helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", len(policy.features)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", policy.n_actions]) for name in outputs],
        g.constants,
        doc_string="A research prototype. Not for clinical use.",
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="suture")
    model.ir_version = IR
    helper.set_model_props(model, {"learner": policy.learner, "features": json.dumps(list(policy.features))})
    onnx.checker.check_model(model, full_check=True)
    return model


def write(policy: NetworkPolicy, file: Path, overwrite: bool = False) -> None:
    """Write the graph to a file, whole or not at all.

    Raises:
        ArtifactError: the file exists (and not `overwrite`), or cannot be written.
    """
    if file.exists() and not overwrite:
        raise ArtifactError(f"{file}: already exists; use --overwrite to replace it")
    content = graph(policy).SerializeToString()
    draft = file.with_name(f".{file.name}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be written ({error.strerror or type(error).__name__})") from error
    finally:
        draft.unlink(missing_ok=True)


def _scaled(g: _Graph, policy: NetworkPolicy) -> str:
    """`Scaler.transform`, step by step in its precision."""
    scaler = policy.scaler
    log = g.constant(scaler.log[None])
    inside = g.op("Where", log, "state", g.number(1.0, np.float32))
    logged = g.op("Where", log, g.op("Log", g.op("Add", inside, g.number(LOG_OFFSET, np.float32))), "state")
    centred = g.op("Sub", g.op("Cast", logged, cast=TensorProto.DOUBLE), g.constant(scaler.mean[None]))
    return g.op("Cast", g.op("Div", centred, g.constant(scaler.std[None])), cast=TensorProto.FLOAT)


def _members(g: _Graph, network: Network, scaled: str) -> list[str]:
    found = []
    for member in range(len(network.weights[0])):
        hidden = scaled
        for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            hidden = g.op("Gemm", hidden, g.constant(weight[member]), g.constant(bias[member, 0]))
            if layer + 1 < len(network.weights):
                hidden = g.op("Relu", hidden)
        found.append(hidden)
    return found


def _usual(g: _Graph, actor: Network, temperature: float, scaled: str) -> str:
    """The actor's probabilities at its temperature."""
    logits = g.op("Div", _members(g, actor, scaled)[0], g.number(temperature, np.float32))
    return g.op("Softmax", logits, axis=1)


def _values(g: _Graph, critic: Network, reward_scale: float, scaled: str) -> str:
    """The ensemble's minimum in reward units."""
    return g.op("Mul", g.op("Min", *_members(g, critic, scaled)), g.number(reward_scale, np.float32))


def _supported(g: _Graph, usual: str, eps: float) -> str:
    """`extraction.mask`, in double precision as there: its edge is a step."""
    return g.op("GreaterOrEqual", usual, g.op("Mul", g.op("ReduceMax", usual, axis=1), g.number(eps)))


def _probs(g: _Graph, policy: NetworkPolicy, usual: str | None, values: str | None) -> str:
    if policy.rule == "softmax" and usual is not None:
        return usual
    if values is None:
        raise ValueError(f"a {policy.rule} policy without values")
    wide = g.op("Cast", values, cast=TensorProto.DOUBLE)
    factor = None if usual is None else g.op("Cast", usual, cast=TensorProto.DOUBLE)
    if policy.rule == "tilt" and factor is not None:
        supported = _supported(g, factor, policy.eps)
        kept = g.op("Where", supported, wide, g.number(-np.inf))
        tilted = g.op("Div", g.op("Sub", kept, g.op("ReduceMax", kept, axis=1)), g.number(policy.alpha))
        weight = g.op("Mul", factor, g.op("Exp", tilted))
        total = g.op("ReduceSum", weight, g.constant(np.array([1])))
        return g.op("Cast", g.op("Div", weight, total), cast=TensorProto.FLOAT)
    if policy.eps > 0 and factor is not None:
        wide = g.op("Where", _supported(g, factor, policy.eps), wide, g.number(-np.inf))
    best = g.op("ArgMax", wide, axis=1)
    flat = g.op("Reshape", best, g.constant(np.array([-1])))
    return g.op("OneHot", flat, g.constant(np.array(policy.n_actions)), g.constant(np.array([0.0, 1.0], np.float32)))
