#!/usr/bin/env python3
"""scripts/import-checkpoint converts PyTorch's files, and a public DCGAN that it converted draws the
images that PyTorch draws, to one grey level: by `sfumato sample` and by the sample.py of releases.

The DCGAN is that of the package gan-face-generate on PyPI (MIT; trained on rendered faces).
"""
import json
import subprocess
import sys
import zipfile
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "src/generate/gan")]
from sfumato_cli import check, main, run_import

try:
    import torch
    from diffusers import UNet2DModel
    from PIL import Image
    from safetensors.torch import load_file
    from torch import nn
    from torchvision.transforms.functional import pil_to_tensor
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
import sample

PACKAGE, MEMBER = "gan-face-generate==1.1.1", "gan_face_generate/weights.tar"
WEIGHTS = "diffusion_pytorch_model.safetensors"
COUNT, SEED = 20, 3


def generator_of_the_tutorial(width=64, latent=100, channels=3):
    """The network of PyTorch's DCGAN tutorial."""
    layers, before = [], latent
    for i, factor in enumerate((8, 4, 2, 1)):
        layers += [nn.ConvTranspose2d(before, width * factor, 4, *((2, 1) if i else (1, 0)), bias=False),
                   nn.BatchNorm2d(width * factor), nn.ReLU()]
        before = width * factor
    return nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 4, 2, 1, bias=False), nn.Tanh())


def discriminator_of_the_tutorial(width=8, channels=3):
    layers, before = [], channels
    for i, factor in enumerate((1, 2, 4, 8)):
        layers.append(nn.Conv2d(before, width * factor, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(width * factor)] * (i > 0) + [nn.LeakyReLU(0.2)]
        before = width * factor
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, bias=False), nn.Sigmoid())


def check_tensors(file, wanted):
    written = load_file(file)
    check(written.keys() == wanted.keys(), f"{file}: other names: {written.keys() ^ wanted.keys()}")
    for name, tensor in wanted.items():
        check(written[name].dtype == tensor.dtype and torch.equal(written[name], tensor),
              f"{file}: '{name}' is another tensor")


def check_importer(work):
    # What training scripts save: several dicts, the names that DataParallel gives.
    network = discriminator_of_the_tutorial()
    state = {f"main.{name}": tensor for name, tensor in network.state_dict().items()}
    saved = {"epoch": 3, "netD": {f"module.{name}": tensor for name, tensor in state.items()},
             "netG": {f"main.{name}": tensor
                      for name, tensor in generator_of_the_tutorial(8).state_dict().items()}}
    torch.save(saved, work / "both.pth")
    said = run_import(work / "both.pth", "--out", work / "both", expect=3)
    check("netD, netG" in said, said)
    for key in ("netD", "netG"):
        run_import(work / "both.pth", "--out", work / "both", "--key", key)
    check_tensors(work / "both/discriminator" / WEIGHTS, state)
    config = json.loads((work / "both/discriminator/config.json").read_text())
    check(config == {"_class_name": "DCGANDiscriminator", "sample_size": 64, "in_channels": 3,
                     "block_out_channels": [8, 16, 32, 64], "norm": "batch", "bias": False,
                     "num_class_embeds": None}, f"the discriminator's configuration: {config}")

    (work / "unet").mkdir()
    unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8),
                       layers_per_block=1, norm_num_groups=4, attention_head_dim=None,
                       down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
    unet.save_pretrained(work / "unet", safe_serialization=False)
    run_import(work / "unet/diffusion_pytorch_model.bin", "--out", work / "converted")
    check_tensors(work / "converted" / WEIGHTS, unet.state_dict())
    UNet2DModel.from_pretrained(work / "converted", low_cpu_mem_usage=False)


def check_refusals(work):
    torch.save(nn.Linear(2, 2), work / "module.pt")  # a pickle of code
    check("tensors alone" in run_import(work / "module.pt", "--out", work / "no", expect=3),
          "a pickled module was taken")
    (work / "noise.pt").write_bytes(b"\x80\x02 not a pickle")
    run_import(work / "noise.pt", "--out", work / "no", expect=3)
    said = run_import(work / "absent.pt", "--out", work / "no", expect=3)
    check("absent.pt" in said, said)
    torch.save({"weight": torch.ones(2)}, work / "other.pt")
    check("--config" in run_import(work / "other.pt", "--out", work / "no", expect=3),
          "a network of another kind was taken without its configuration")
    network = generator_of_the_tutorial(8)
    network[3].weight.data.fill_(float("nan"))
    torch.save(network.state_dict(), work / "nan.pt")
    said = run_import(work / "nan.pt", "--out", work / "no", expect=3)
    check("main.3.weight" in said, said)


def download(work):
    """The package's weights, or None and why they are not to be had."""
    try:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                               "--disable-pip-version-check", "--dest", work, PACKAGE],
                              capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return None, f"{PACKAGE} did not arrive within 300 s"
    wheels = list(work.glob("gan_face_generate-*.whl"))
    if done.returncode != 0 or not wheels:
        return None, f"{PACKAGE} cannot be downloaded: {done.stderr.strip()[-300:]}"
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(MEMBER, work)), None


def pictures(files):
    return torch.stack([pil_to_tensor(Image.open(file)).permute(1, 2, 0) for file in sorted(files)])


def check_same(name, ours, theirs):
    check(ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)}, PyTorch {tuple(theirs.shape)}")
    worst = (ours.int() - theirs.int()).abs().max().item()
    check(worst <= 1, f"{name}: differs from PyTorch's images by {worst} grey levels")


def drawn_by_script(folder, out, count):
    subprocess.run([sys.executable, ROOT / "src/generate/gan/sample.py", "--generator",
                    folder / "generator", "--out", out, "--count", str(count), "--seed", str(SEED)],
                   check=True, stdout=subprocess.DEVNULL)
    return pictures(out.glob("*/*.png"))


def drawn_by_us(sfumato, folder, out, count):
    sfumato.run("sample", folder, "--out", out, "--count", count, f"sample.seed={SEED}")
    return pictures(out.glob("images/*/*.png"))


@torch.no_grad()
def check_conditional(sfumato, work):
    """Networks with classes, made here, go through --config and are drawn from by both programs."""
    torch.manual_seed(2)
    shared = dict(sample_size=28, out_channels=1, latent_size=12, num_class_embeds=3,
                  class_embed_size=5)
    for config in (dict(shared, _class_name="DCGANGenerator", block_out_channels=[24, 16]),
                   dict(shared, _class_name="ResnetGANGenerator", block_out_channels=[24, 16, 16],
                        upsample_blocks=2, attention_after=[2])):
        folder = work / config["_class_name"]
        network = getattr(sample, config["_class_name"])(config)
        for name, value in network.named_parameters():
            if name.endswith("gamma"):
                value.fill_(0.7)
        for _ in range(20):
            network.train()(torch.randn(32, 12), torch.arange(32) % 3)  # moves the statistics
        folder.mkdir()
        torch.save(network.state_dict(), folder / "state.pt")
        (folder / "network.json").write_text(json.dumps(config))
        run_import(folder / "state.pt", "--config", folder / "network.json", "--out",
                   folder / "generator")
        theirs = drawn_by_script(folder, folder / "by_script", 7)
        check(theirs.float().std() > 5, f"{config['_class_name']}: images without contrast")
        check_same(config["_class_name"], drawn_by_us(sfumato, folder, folder / "corpus", 7), theirs)


@torch.no_grad()
def check_faces(sfumato, work, file):
    model = work / "faces"
    run_import(file, "--out", model)
    network = generator_of_the_tutorial()
    state = torch.load(file, map_location="cpu", weights_only=True)["netG_state_dict"]
    network.load_state_dict({name.removeprefix("main."): value for name, value in state.items()})
    check_tensors(model / "generator" / WEIGHTS, state)
    latents = torch.stack([sample.latents_of(SEED, 0, index, 100) for index in range(COUNT)])
    drawn = network.eval()(latents[:, :, None, None])
    theirs = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    check_same("sample.py", drawn_by_script(model, work / "by_script", COUNT), theirs)
    check_same("sfumato sample", drawn_by_us(sfumato, model, work / "corpus", COUNT), theirs)


def run_check(sfumato, work, _):
    check_importer(work)
    check_refusals(work)
    check_conditional(sfumato, work)
    file, missing = download(work)
    if file is None:
        return missing
    check_faces(sfumato, work, file)


if __name__ == "__main__":
    main(run_check, __doc__.splitlines()[0])
