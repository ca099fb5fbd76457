"""Transformers of finite width in plain JAX, which share no code with the library: gradients are those of the loss.

A network is a list of blocks, bottom to top, each a tuple of its name and its numbers; the first is ("embed",):

    ("embed",)                           W x / sqrt(D) at every position
    ("dense",)                           W x / sqrt(N) at every position
    ("activation", name)                 an elementwise function
    ("norm", kind)                       "layer" with gain and bias, or "rms" with gain
    ("heads", d, causal, beta, kind)     x + beta times attention of N / d heads of dimension d, after a norm
    ("mean", scale, causal, beta, kind)  x + beta times one head with logits scale q k / N
    ("hidden", name, ratio, beta, kind)  x + beta times a network of one hidden layer of ratio N neurons
    ("gate", beta, kind)                 x + beta times W2 (silu(W1 x) W3 x)

`kind` is "layer", "rms" or None for no norm. All weights start as N(0, 1); the readout divides by gamma0 N.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Block = tuple[Any, ...]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": functools.partial(jax.nn.gelu, approximate=False)}


def init(blocks: Sequence[Block], dimensions: int, N: int, key: Array) -> Any:
    """Parameters of all blocks, and the readout."""
    params = []
    for number, block in enumerate(blocks):
        keys = iter(jax.random.split(jax.random.fold_in(key, number), 4))

        def normal(*shape: int, keys: Any = keys) -> Array:
            return jax.random.normal(next(keys), shape)

        own: dict[str, Array] = {"gain": jnp.ones(N), "bias": jnp.zeros(N)}
        match block:
            case ("embed",):
                own = {"W": normal(N, dimensions)}
            case ("dense",):
                own = {"W": normal(N, N)}
            case ("heads", d, *_):
                own |= {name: normal(N // d, d, N) for name in "QKV"} | {"O": normal(N, N // d, d)}
            case ("mean", *_):
                own |= {name: normal(N, N) for name in "QKVO"}
            case ("hidden", _, ratio, *_):
                own |= {"W1": normal(ratio * N, N), "W2": normal(N, ratio * N)}
            case ("gate", *_):
                own |= {name: normal(N, N) for name in ("W1", "W2", "W3")}
        params.append(own)
    return params, jax.random.normal(jax.random.fold_in(key, len(blocks)), (N,))


def normalize(x: Array, own: dict[str, Array], kind: str | None) -> Array:
    """A norm over neurons, with what it learns."""
    if kind is None:
        return x
    if kind == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = own["gain"] * x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x + own["bias"] if kind == "layer" else x


def attend(logits: Array, causal: bool) -> Array:
    """Weights of keys, the last axis, for every query."""
    if causal:
        logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=-1)


def output(blocks: Sequence[Block], readout: str, params: Any, X: Array) -> tuple[Array, list[Array]]:
    """gamma0 f (P,) of X (P, positions, D), and the features that enter weights, (P, positions, n)."""
    layers, w = params
    x, features, N = X, [], len(w)
    for block, own in zip(blocks, layers, strict=True):
        match block:
            case ("embed",):
                x = x @ own["W"].T / np.sqrt(x.shape[-1])
                continue
            case ("dense",):
                features.append(x)
                x = x @ own["W"].T / np.sqrt(N)
                continue
            case ("activation", name):
                x = ACTIVATIONS[name](x)
                continue
            case ("norm", kind):
                x = normalize(x, own, kind)
                continue
        *settings, beta, kind = block
        y = normalize(x, own, kind)
        features.append(y)
        match settings:
            case ("heads", d, causal):
                q, k, v = (jnp.einsum("hdn,pan->phad", own[name], y) / np.sqrt(N) for name in "QKV")
                seen = attend(q @ k.swapaxes(-1, -2) / np.sqrt(d), causal) @ v  # (P, heads, positions, d)
                features.append(jnp.moveaxis(seen, 1, 3).reshape(*y.shape[:2], -1))
                y = jnp.einsum("nhd,phad->pan", own["O"], seen) / np.sqrt(N)
            case ("mean", scale, causal):
                q, k, v = (y @ own[name].T / np.sqrt(N) for name in "QKV")
                features.append(attend(scale * q @ k.swapaxes(-1, -2) / N, causal) @ v)
                y = features[-1] @ own["O"].T / np.sqrt(N)
            case ("hidden", name, ratio):
                features.append(ACTIVATIONS[name](y @ own["W1"].T / np.sqrt(N)))
                y = features[-1] @ own["W2"].T / np.sqrt(ratio * N)
            case ("gate",):
                features.append(jax.nn.silu(y @ own["W1"].T / np.sqrt(N)) * (y @ own["W3"].T / np.sqrt(N)))
                y = features[-1] @ own["W2"].T / np.sqrt(N)
        x = x + beta * y
    x = x.mean(1) if readout == "mean" else x[:, -1]
    return x @ w / N, features


@functools.lru_cache(maxsize=32)
def trainer(blocks: tuple[Block, ...], readout: str, N: int, steps: int) -> Any:
    """A compiled function of (seeds, X, y, gamma0, eta): f (seeds, steps + 1, P), and y K y."""

    def one(seed: Array, X: Array, y: Array, gamma0: Array, eta: Array) -> tuple[Array, Array]:
        params = init(blocks, X.shape[-1], N, jax.random.key(seed))
        start = output(blocks, readout, params, X)[0] / gamma0

        def loss(params: Any) -> tuple[Array, Array]:
            f = output(blocks, readout, params, X)[0] / gamma0 - start
            return jnp.mean((f - y) ** 2) / 2, f

        def step(params: Any, _: None) -> tuple[Any, Array]:
            slopes, f = jax.grad(loss, has_aux=True)(params)
            return jax.tree.map(lambda p, slope: p - eta * gamma0**2 * N * slope, params, slopes), f

        params, f = jax.lax.scan(step, params, None, length=steps)
        last, features = output(blocks, readout, params, X)
        kernels = [jnp.mean(jnp.einsum("p,pan->an", y, each) ** 2) for each in features]
        return jnp.concatenate([f, (last / gamma0 - start)[None]]), jnp.stack(kernels)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None, None, None)))


def train(
    blocks: Sequence[Block],
    X: np.ndarray,
    y: np.ndarray,
    N: int,
    seeds: int,
    *,
    eta: float,
    steps: int,
    gamma0: float = 1.0,
    readout: str = "mean",
    together: int = 8,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """f (seeds, steps + 1, P), and y K y of the final kernels (seeds, features), a mean over positions."""
    run, parts = trainer(tuple(blocks), readout, N, steps), []
    for numbers in np.array_split(first + np.arange(seeds), -(-seeds // together)):
        parts.append(run(jnp.asarray(numbers, jnp.uint32), jnp.asarray(X), jnp.asarray(y), gamma0, eta))
    f, kernels = (np.concatenate([np.asarray(part[place]) for part in parts]) for place in (0, 1))
    return f, kernels
