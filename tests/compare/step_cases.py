"""Networks and sizes of the steps that are compared."""
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "small": {
        "batch": 32,
        "draws": 1,
        "network": {
            "sample_size": 28, "in_channels": 1, "out_channels": 1,
            "block_out_channels": [32, 64, 64], "layers_per_block": 2, "norm_num_groups": 8,
            "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        },
    },
    "cifar10": {
        "batch": 4,
        "draws": 4,
        "network": {
            "sample_size": 32, "in_channels": 3, "out_channels": 3,
            "block_out_channels": [128, 256, 256, 256], "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False,
            "freq_shift": 1, "norm_eps": 1e-6,
        },
    },
    "dcgan28": {
        "batch": 64,
        "draws": 2,
        "pair": {network: ROOT / f"configs/networks/dcgan_28_{network}.json"
                 for network in ("generator", "discriminator")},
    },
}


class Variant(NamedTuple):
    """How PyTorch may run a network."""
    name: str
    channels_last: bool = False
    search: bool = False         # cuDNN tries its algorithms and takes the fastest
    deterministic: bool = False  # cuDNN takes deterministic algorithms alone


class Setting(NamedTuple):
    """What a step runs on; images and their draws."""
    case: str
    batch: int
    draws: int
    device: str = "cpu"
    precision: str = "fp32"
    variant: Variant = Variant("NCHW")
