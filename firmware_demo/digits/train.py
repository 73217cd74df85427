#!/usr/bin/env python3
"""Train the bundled network on scikit-learn's digits (8x8 handwriting) and write it as ONNX with its samples.

Needs torch, onnxscript and scikit-learn. Writes digits.onnx, calibration.npz and evaluation.npz beside this file.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
EPOCHS = 60


def network() -> nn.Module:
    """A small CNN: two convolutions with batch-norm, a depthwise-separable block, a dense head."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """Stochastic gradient descent with momentum and a cosine schedule."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        schedule.step()


def without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes (source lines, stack traces): they differ from machine to machine."""
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for value in (*model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:]
    return model


def main() -> None:
    """Train, report the accuracy and write the three files."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(x, labels, test_size=0.25, random_state=0, stratify=labels)
    model = network()
    train(model, torch.from_numpy(x_train), torch.from_numpy(y_train))
    model.eval()
    with torch.no_grad():
        accuracy = (model(torch.from_numpy(x_test)).argmax(1).numpy() == y_test).mean()
    print(f"accuracy on {len(y_test)} held-out digits: {accuracy:.4f}")
    exported = torch.onnx.export(
        model, (torch.zeros(1, 1, 8, 8),), dynamo=True, input_names=["image"], output_names=["logits"], verbose=False
    )
    onnx.save(without_metadata(exported.model_proto), HERE / "digits.onnx")
    np.savez_compressed(HERE / "calibration.npz", image=x_train[:200])
    np.savez_compressed(HERE / "evaluation.npz", image=x_test, y=y_test.astype(np.int32))


if __name__ == "__main__":
    main()
