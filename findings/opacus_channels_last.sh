#!/usr/bin/env bash
# Opacus 1.6.0 with torch 2.11.0: per-example gradients of a convolution in channels_last.
#
# Expected: memory format is a matter of speed. A convolution's per-example weight gradients (grad_sample) are
# the same for an input in channels_last and for its contiguous copy, as torch's own gradients are.
# Seen: for the contiguous input they agree with one backward pass per example to 1e-7; for the same values in
# channels_last they are off by more than their own norm. No warning. Norms, and with them the clip, are of
# something else: Opacus unfolds the input through strides that it takes for those of a contiguous tensor.
# Network and input may be in channels_last without anyone asking for it in the training loop: torchvision
# recipes and `model.to(memory_format=torch.channels_last)` do so.
# shellcheck source=common.sh
source "$(dirname -- "$0")/common.sh"
install opacus==1.6.0 torch==2.11.0

environment/bin/python -W ignore - <<'PYTHON'
import opacus
import torch
from opacus import GradSampleModule

torch.manual_seed(0)
images = torch.randn(2, 3, 5, 5)
weights = torch.randn(4, 3, 3, 3)


def convolution():
    layer = torch.nn.Conv2d(3, 4, 3, bias=False)
    layer.weight.data.copy_(weights)
    return layer


def one_at_a_time(layout):
    gradients = []
    for image in images.split(1):
        layer = convolution()
        layer(image.to(memory_format=layout)).square().sum().backward()
        gradients.append(layer.weight.grad)
    return torch.stack(gradients)


def by_opacus(layout):
    layer = convolution()
    module = GradSampleModule(layer, loss_reduction="sum")
    module(images.to(memory_format=layout)).square().sum().backward()
    return layer.weight.grad_sample


print(f"opacus {opacus.__version__}, torch {torch.__version__}")
seen = {}
for layout in (torch.contiguous_format, torch.channels_last):
    exact = one_at_a_time(layout)
    seen[layout] = float((by_opacus(layout) - exact).norm() / exact.norm())
    print(f"{layout}: relative difference of grad_sample to one backward pass per example {seen[layout]:.2g}")
raise SystemExit(0 if seen[torch.contiguous_format] < 1e-5 and seen[torch.channels_last] > 0.1 else 1)
PYTHON
