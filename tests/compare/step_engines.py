#!/usr/bin/env python3
"""The engines of opacus_step.py that are Python's: PyTorch's ordinary step, and Opacus' two private
ones, which form per-example gradients in hooks or only their norms (ghost clipping).

Runs in a process of its own per row. `serve` checks a private engine's per-example norms against one
backward pass per example, says that it is ready, then takes a step for every line of its input."""
import json
import sys
import time
from pathlib import Path

from step_cases import CASES, ROOT, Setting, Variant

CHECKED = 2  # images whose norms are compared


# Networks and their losses, whose mean over one example's is its own: [B K] of draws, or [B] --------------


def layout_of(setting: Setting):
    import torch

    return torch.channels_last if setting.variant.channels_last else torch.contiguous_format


class Denoising:
    """Inputs: sample and target [B, K, C, H, W], timestep [B, K]."""

    def __init__(self, setting: Setting):
        self.setting, self.network = setting, make_network(CASES[setting.case])
        self.layout = layout_of(setting)
        self.network.train().to(setting.device).to(memory_format=self.layout)

    def inputs(self, batch: int) -> tuple:
        import torch

        config, device = CASES[self.setting.case]["network"], self.setting.device
        shape = (batch, self.setting.draws, config["in_channels"], *2 * [config["sample_size"]])
        sample, target = (torch.randn(shape, device=device) for _ in range(2))
        return sample, torch.randint(0, 1000, shape[:2], device=device), target

    def losses(self, network, inputs: tuple):
        import torch

        sample, timestep, target = (each.flatten(0, 1) for each in inputs)
        with torch.autocast(self.setting.device, torch.bfloat16,
                            enabled=self.setting.precision == "bf16"):
            out = network(sample.to(memory_format=self.layout), timestep).sample.float()
        return (out - target).square().flatten(1).mean(dim=1)

    def by_hooks(self, network, inputs: tuple) -> None:
        """Backward passes that leave per-example gradients of images in Opacus' grad_sample."""
        self.losses(network, inputs).mean().backward()
        batch, draws = inputs[0].shape[:2]
        if draws > 1:
            for p in network.parameters():
                p.grad_sample = p.grad_sample.view(batch, draws, *p.shape).mean(dim=1)


class Discriminating:
    """Inputs: images [B, ...] with labels [B], fakes [B, K - 1, ...] with theirs."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.layout = layout_of(setting)
        self.generator, self.network = (
            each.to(setting.device).to(memory_format=self.layout) for each in make_pair(CASES[setting.case]))

    def inputs(self, batch: int) -> tuple:
        import torch

        fakes, device = self.setting.draws - 1, self.setting.device
        classes = self.network.class_embedding.num_embeddings
        with torch.no_grad():
            labels, of_fakes = (torch.randint(0, classes, (n,), device=device) for n in (batch, batch * fakes))
            latents = torch.randn(batch * fakes, self.generator.latent_size, device=device)
            made = self.generator(latents, of_fakes)
            real = torch.randn(batch, *made.shape[1:], device=device)
        return real, labels, made.unflatten(0, (batch, fakes)), of_fakes.view(batch, fakes)

    def losses(self, network, inputs: tuple):
        import torch

        real, labels, made, of_fakes = inputs
        batch, fakes = of_fakes.shape
        images = torch.cat([real, made.flatten(0, 1)]).to(memory_format=self.layout)
        scores = network(images, torch.cat([labels, of_fakes.flatten()])).flatten()
        return ((1 - scores[:batch]).relu() +
                (1 + scores[batch:]).relu().view(batch, fakes).mean(dim=1))

    def by_hooks(self, network, inputs: tuple) -> None:
        real, labels, made, of_fakes = inputs
        batch, fakes = of_fakes.shape
        (1 - network(real, labels)).relu().mean().backward()
        (1 + network(made.flatten(0, 1), of_fakes.flatten())).relu().mean().backward()
        for p in network.parameters():
            of_real, of_made = p.grad_sample
            p.grad_sample = of_real + of_made.view(batch, fakes, *p.shape).mean(dim=1)


def make_network(case: dict):
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(**case["network"])


def make_pair(case: dict) -> tuple:
    """Generator and discriminator as PyTorch's networks."""
    import torch

    sys.path.insert(0, str(ROOT / "tests/python"))
    import gan_networks_in_torch as networks

    torch.manual_seed(0)
    generator, discriminator = (json.loads(path.read_text()) for path in case["pair"].values())
    return (networks.DCGANGenerator(generator).eval(),
            networks.DCGANDiscriminator(discriminator).train())


def make_task(setting: Setting):
    return Discriminating(setting) if "pair" in CASES[setting.case] else Denoising(setting)


# Engines ---------------------------------------------------------------------------------------------


class Plain:
    """PyTorch's ordinary step."""

    def __init__(self, task):
        import torch

        self.task = task
        self.optimizer = torch.optim.Adam(task.network.parameters(), lr=1e-4)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.task.losses(self.task.network, self.task.inputs(self.task.setting.batch)).mean().backward()
        self.optimizer.step()


def see_contiguous_inputs(network) -> None:
    """Behind attention images lie in channels_last without anyone asking for it, and of such inputs
    Opacus 1.6.0 forms wrong gradients of convolutions (findings/opacus_channels_last.sh)."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


class Hooks:
    """Opacus' per-example gradients; mended: of contiguous inputs alone."""

    def __init__(self, task, mended: bool = True):
        import torch
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        if mended:
            see_contiguous_inputs(task.network)
        self.task, self.names = task, [name for name, _ in task.network.named_parameters()]
        self.network = GradSampleModule(task.network, batch_first=True, loss_reduction="mean")
        self.optimizer = DPOptimizer(torch.optim.Adam(self.network.parameters(), lr=1e-4),
                                     noise_multiplier=1.0, max_grad_norm=1.0,
                                     expected_batch_size=task.setting.batch)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.task.by_hooks(self.network, self.task.inputs(self.task.setting.batch))
        self.optimizer.step()

    def norms(self, inputs: tuple):
        """[examples, parameters]"""
        import torch

        self.task.by_hooks(self.network, inputs)
        norms = torch.stack([p.grad_sample.float().flatten(1).norm(dim=1)
                             for p in self.network.parameters()], dim=1)
        self.optimizer.zero_grad(set_to_none=True)
        return norms


class Ghost:
    """Opacus' ghost clipping: norms alone, then a second backward pass of weighted losses. Every
    input is an example of its own: where an image has several draws, each is clipped."""

    def __init__(self, task):
        import torch
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        see_contiguous_inputs(task.network)
        self.task, self.names = task, [name for name, _ in task.network.named_parameters()]
        self.network = GradSampleModuleFastGradientClipping(
            task.network, batch_first=True, loss_reduction="mean", max_grad_norm=1.0,
            use_ghost_clipping=True)
        self.optimizer = DPOptimizerFastGradientClipping(
            torch.optim.Adam(self.network.parameters(), lr=1e-4), noise_multiplier=1.0,
            max_grad_norm=1.0, expected_batch_size=task.setting.batch * task.setting.draws)
        self.clipped_losses = DPTensorFastGradientClipping

    def backward(self, inputs: tuple) -> None:
        losses = self.task.losses(self.network, each_draw(inputs))
        self.clipped_losses(self.network, self.optimizer, losses, "mean").backward()

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(self.task.inputs(self.task.setting.batch))
        self.optimizer.step()

    def norms(self, inputs: tuple):
        import torch

        self.backward(inputs)
        norms = torch.stack([p._norm_sample.float() for p in self.network.parameters()], dim=1)
        self.optimizer.zero_grad(set_to_none=True)
        return norms


class HooksAsTheyAre(Hooks):
    def __init__(self, task):
        super().__init__(task, mended=False)


ENGINES = {"plain": Plain, "hooks": Hooks, "hooks as they are": HooksAsTheyAre, "ghost": Ghost}


# What is right ---------------------------------------------------------------------------------------


def each_draw(inputs: tuple) -> tuple:
    """Every draw as an example of its own."""
    return tuple(each.flatten(0, 1).unsqueeze(1) for each in inputs)


def one_at_a_time(task, inputs: tuple):
    """Norms of the gradients of examples [examples, parameters], a backward pass for each: of the mean
    loss of its draws."""
    import torch

    norms = []
    for i in range(len(inputs[0])):
        task.network.zero_grad(set_to_none=True)
        task.losses(task.network, tuple(each[i:i + 1] for each in inputs)).mean().backward()
        norms.append(torch.stack([p.grad.norm() for p in task.network.parameters()]))
    task.network.zero_grad(set_to_none=True)
    return torch.stack(norms)


def checked_inputs(task) -> tuple:
    import torch

    torch.manual_seed(1)
    return task.inputs(CHECKED)


def difference(norms, exact, names: list) -> dict:
    """How far an engine's norms of examples are off, and of which parameter they are off most, as a
    share of the example's norm."""
    whole = exact.norm(dim=1)
    each = ((norms - exact).abs() / whole[:, None]).amax(dim=0)
    worst = int(each.argmax())
    return {"difference": float(((norms.norm(dim=1) - whole).abs() / whole).max()),
            "parameter_difference": float(each[worst]), "parameter": names[worst]}


def exact_norms(setting: Setting, per_draw: bool, inputs: tuple):
    """In float32 and NCHW, with the same weights."""
    exact = make_task(setting._replace(precision="fp32", variant=Variant("NCHW")))
    return one_at_a_time(exact, each_draw(inputs) if per_draw else inputs)


def save(setting: Setting, folder: Path, check: bool) -> dict:
    """What `sfumato bench step --network` and `sfumato probe` take; the norms that the second is to
    find, if it is asked. Nothing of that for a GAN, which it does not take."""
    case = CASES[setting.case]
    if "pair" in case:
        for network, path in case["pair"].items():
            (folder / network).mkdir(parents=True, exist_ok=True)
            (folder / network / "config.json").write_text(path.read_text())
        return {}
    from safetensors.torch import save_file

    task = Denoising(setting._replace(device="cpu"))
    task.network.save_pretrained(folder)
    if not check:
        return {}
    inputs = checked_inputs(task)
    save_file(dict(zip(("sample", "timestep", "target"), inputs)), folder / "inputs.safetensors")
    return {"norms": one_at_a_time(task, inputs).norm(dim=1).tolist()}


# A process -------------------------------------------------------------------------------------------


def peak_mib(device: str) -> float:
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def finish(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def set_libraries(setting: Setting, arguments) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = setting.variant.search
    torch.backends.cudnn.deterministic = setting.variant.deterministic
    if arguments.without_cudnn_attention:
        torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_tf32 = setting.precision != "fp32"
    torch.backends.cudnn.allow_tf32 = setting.precision != "fp32"


def serve(engine_name: str, setting: Setting, arguments, in_a_row: int) -> None:
    """Lines of stdout: "ready" and what is known before the first step, seconds of a step for every
    line of stdin, and at its end the peak of the memory."""
    set_libraries(setting, arguments)
    task = make_task(setting)
    engine = ENGINES[engine_name](task)
    facts = {"parameters": sum(p.numel() for p in task.network.parameters())}
    if engine_name != "plain" and arguments.check:
        inputs = checked_inputs(task)
        facts["check"] = difference(engine.norms(inputs), exact_norms(setting, engine_name == "ghost", inputs),
                                    engine.names)
    forget_peak(setting.device)

    def seconds_of(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            engine.step()
        finish(setting.device)
        return (time.perf_counter() - start) / steps

    for _ in range(arguments.warmup):
        seconds_of(1)
    print("ready " + json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(seconds_of(in_a_row), flush=True)
    print(json.dumps({"peak_mib": peak_mib(setting.device)}), flush=True)
