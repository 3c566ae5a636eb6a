#!/usr/bin/env python3
"""Trains the digits example and writes digits.onnx and digits.npz beside this file.

The data are the 1,797 handwritten digits bundled with scikit-learn (8x8 pixels, ten
classes), so nothing is downloaded. The split and every seed are fixed. What comes out:

digits.onnx  input `images` f32 [batch, 1, 8, 8], output `logits` f32 [batch, 10], opset 18
digits.npz   `images` f32 [360, 1, 8, 8] and `labels` i64 [360]: the test split
"""
import os

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 7
TEST_IMAGES = 360
EPOCHS = 40
BATCH = 64


def network():
    """Two convolutions of 3x3, a pooling after each, two dense layers: 27,098 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 160), nn.ReLU(), nn.Dropout(0.3), nn.Linear(160, 10))


def data():
    """Images scaled to 0..1 (the file holds 0..16) and labels, split once and for all."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    return train_test_split(images, labels, test_size=TEST_IMAGES, random_state=SEED, stratify=labels)


def shifted(x):
    """Moves each image of a batch by at most one pixel, the blank border moving in."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    dy, dx = torch.randint(0, 3, (2, len(x)))
    rows = dy[:, None] + torch.arange(8)
    cols = dx[:, None] + torch.arange(8)
    return padded[torch.arange(len(x))[:, None, None], 0, rows[:, :, None], cols[:, None, :]][:, None]


def train(model, images, labels):
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        model.train()
        for index in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(shifted(images[index])), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    train_x, test_x, train_y, test_y = data()
    model = train(network(), torch.from_numpy(train_x), torch.from_numpy(train_y))
    with torch.no_grad():
        hits = int((model(torch.from_numpy(test_x)).argmax(1).numpy() == test_y).sum())
    count = sum(p.numel() for p in model.parameters())
    print(f"{len(train_x)} training images, {count} parameters: {hits} of {len(test_x)} right")
    # PRESERVE keeps BatchNormalization in the graph: folding it away is the compiler's work.
    torch.onnx.export(model, (torch.from_numpy(test_x[:2]),), os.path.join(HERE, "digits.onnx"),
                      input_names=["images"], output_names=["logits"], opset_version=18, dynamo=False,
                      training=torch.onnx.TrainingMode.PRESERVE,
                      dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}})
    np.savez(os.path.join(HERE, "digits.npz"), images=test_x, labels=test_y)


if __name__ == "__main__":
    main()
