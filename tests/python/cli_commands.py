#!/usr/bin/env python3
"""Drives bench, doctor and inspect of a built sfumato as a user does.

    tests/python/cli_commands.py --sfumato build/release/sfumato

Needs nothing but Python's standard library.
"""
import argparse
import gzip
import json
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SFUMATO = None  # set from the command line

NETWORK = {
    "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1,
    "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 4,
}
USAGE, DATA, PRIVACY, DEVICE = 2, 3, 4, 5


def run(*words, code=0, stdin=None):
    done = subprocess.run([SFUMATO, *map(str, words)], capture_output=True, text=True, timeout=300,
                          input=stdin)
    if done.returncode != code:
        raise AssertionError(f"{words}: exit code {done.returncode}, not {code}\n{done.stdout}"
                             f"{done.stderr}")
    return done


def run_json(*words):
    return json.loads(run(*words, "--json").stdout)


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        cls.network = cls.folder / "config.json"
        cls.network.write_text(json.dumps(NETWORK))
        cls.run_folder = cls.folder / "run"
        images = bytes((i * 37 + j) % 256 for i in range(24) for j in range(64))
        with gzip.open(cls.folder / "images.gz", "wb") as file:
            file.write(struct.pack(">IIII", 2051, 24, 8, 8) + images)
        with gzip.open(cls.folder / "labels.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, 24) + bytes(i % 2 for i in range(24)))
        cls.settings = [f"data.store={cls.folder / 'store'}", "data.num_classes=2",
                        "data.image_size=8", "data.channels=1", f"model.config={cls.network}",
                        f"run.dir={cls.run_folder}", "mechanism.sample_rate=0.5",
                        "mechanism.steps=2", "mechanism.expected_batch_size=12",
                        "mechanism.noise_multiplier=1.0"]

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def test_bench_step_compares_both_kinds(self):
        out = run_json("bench", "step", "--network", self.network, "--examples", 3, "--draws", 2,
                       "--repeat", 2, "--threads", 1)
        case, = out["cases"]
        self.assertEqual((case["examples"], case["draws"]), (3, 2))
        for kind in ("private", "plain"):
            for part in ("gradient", "whole_step"):
                timing = case[kind][part]
                self.assertGreater(timing["min_s"], 0)
                self.assertLessEqual(timing["min_s"], timing["median_s"])
                self.assertLessEqual(timing["median_s"], timing["max_s"])
            self.assertGreater(case[kind]["peak_bytes_gradient"], case[kind]["idle_bytes"] // 2)
            self.assertGreaterEqual(case[kind]["peak_bytes_whole_step"],
                                    case[kind]["peak_bytes_gradient"])
        for ratio in (case["ratio"]["gradient"], case["ratio"]["whole_step"]):
            self.assertGreater(ratio["median"], 0)
            self.assertGreater(ratio["min"], 0)
        self.assertAlmostEqual(
            case["ratio"]["peak_gradient"],
            case["private"]["peak_bytes_gradient"] / case["plain"]["peak_bytes_gradient"])

    def test_bench_step_takes_precisions_by_turns(self):
        """The same one twice, which every processor has: a ratio of 1, give or take the machine."""
        out = run_json("bench", "step", "--network", self.network, "--examples", 3, "--repeat", 3,
                       "--threads", 1, "--precision", "fp32,fp32")
        first, second = out["cases"]
        self.assertEqual((out["precision"], second["precision"]), ("fp32,fp32", "fp32"))
        self.assertNotIn("over_first", first)
        for kind in ("private", "plain"):
            for part in ("gradient", "whole_step"):
                over = second["over_first"][kind][part]
                self.assertAlmostEqual(over["median"], second[kind][part]["median_s"] /
                                       first[kind][part]["median_s"])
                turns = over["by_turn"]
                self.assertLessEqual(turns["low"], turns["median"])
                self.assertLessEqual(turns["median"], turns["high"])
        said = run("bench", "step", "--network", self.network, "--examples", 3, "--repeat", 1,
                   "--threads", 1, "--precision", "fp32,fp32").stdout
        self.assertEqual(said.count(", over fp32"), 2)
        run("bench", "step", "--device", "cuda", "--precision", "fp32,bf16", code=USAGE)
        run("bench", "step", "--precision", "fp32,fp31", code=USAGE)

    def test_bench_step_takes_turns_with_other_programs(self):
        words = ("bench", "step", "--network", self.network, "--examples", 3, "--threads", 1,
                 "--by-turns", "--only")
        for kind in ("private", "plain"):
            said = run(*words, kind, stdin="step\n\n").stdout.splitlines()
            self.assertEqual(len(said), 4)
            self.assertGreater(int(said[0].removeprefix("ready ")), 1000)
            self.assertTrue(all(0 < float(seconds) < 60 for seconds in said[1:3]))
            idle, gradient, whole, held = map(int, said[3].split())
            self.assertTrue(0 < idle <= gradient <= whole and held == 0)
        run(*words[:-1], code=USAGE)

    def test_other_benchmarks(self):
        noise = run_json("bench", "noise", "--count", 100000, "--repeat", 2, "--threads", 1)
        self.assertAlmostEqual(
            noise["ratio"], noise["chacha_normals_per_s"] / noise["torch_normals_per_s"])
        account = run_json("bench", "account", "--repeat", 1)
        # The same questions through `account`, and the calibrated noise must reach the target.
        for name in ("rdp", "pld"):
            how = ("--delta", "1e-5", "--accountant", name)
            asked = run_json("account", "--phase", "0.04:1.5:2250", *how)
            self.assertAlmostEqual(account[name]["epsilon"], asked["epsilon"], places=9)
            sigma = account[name]["calibrated_noise_multiplier"]
            reached = run_json("account", "--phase", f"0.04:{sigma}:2250", *how)
            self.assertLessEqual(reached["epsilon"], 8)
            self.assertGreater(reached["epsilon"], 7.999)
        sample = run_json("bench", "sample", "--network", self.network, "--batch", 2, "--steps", 2,
                          "--repeat", 1, "--threads", 1)
        self.assertGreater(sample["images_per_s"], 0)

    def test_benchmarks_of_a_gan(self):
        networks = Path(__file__).resolve().parents[2] / "configs/networks"
        generator = networks / "gan_smoke_generator.json"
        sample = run_json("bench", "sample", "--network", generator, "--beside", self.network,
                          "--batch", 2, "--steps", 3, "--repeat", 1, "--threads", 1)
        self.assertEqual((sample["steps"], sample["beside"]["steps"]), (1, 3))
        self.assertAlmostEqual(sample["rate_over_beside"],
                               sample["images_per_s"] / sample["beside"]["images_per_s"])
        words = ("bench", "step", "--network", networks / "gan_smoke_discriminator.json")
        case, = run_json(*words, "--generator", generator, "--examples", 3, "--draws", 3,
                         "--repeat", 1, "--threads", 1)["cases"]
        self.assertEqual(case["parameters"], 5113)
        self.assertGreater(case["ratio"]["whole_step"]["median"], 0)
        self.assertIn("diffusion network", run("bench", "project", *words[2:], code=USAGE).stderr)

    def test_bench_kernels_says_what_needs_a_gpu(self):
        out = run_json("bench", "kernels", "--repeat", 1, "--examples", 2, "--draws", 2)
        self.assertGreater(out["bytes_per_s"], 1e8)
        self.assertIsNone(out["bf16_flops_per_s"])
        rows = {row["kernel"]: row for row in out["rows"]}
        self.assertEqual(rows["conv_weight_grad"]["note"], "needs a GPU")
        update = rows["private_update"]
        self.assertAlmostEqual(update["gbytes_per_s"], update["bytes"] / update["min_s"] * 1e-9)
        self.assertAlmostEqual(update["share_of_limit"],
                               update["bytes"] / update["min_s"] / out["bytes_per_s"])
        self.assertIn("needs a GPU", run("bench", "kernels", "--repeat", 1).stdout)

    def test_bench_project_adds_up_and_says_that_nothing_was_run(self):
        words = ("bench", "project", "--network", self.network, "--examples", 4, "--draws", 2)
        out = run_json(*words)
        self.assertTrue(out["projected"])
        self.assertEqual(out["gpu"]["name"], "H200")
        for kind in ("plain", "private"):
            self.assertAlmostEqual(out[f"{kind}_s"],
                                   sum(term[f"{kind}_s"] for term in out["terms"]))
        self.assertAlmostEqual(out["time_ratio"], out["private_s"] / out["plain_s"])
        self.assertAlmostEqual(out["memory_ratio"], out["private_bytes"] / out["plain_bytes"])
        self.assertAlmostEqual(out["draws_per_s"] * out["private_s"], 8)
        text = run(*words, "--gpu", "a100 80gb").stdout
        self.assertTrue(text.startswith("PROJECTED"))
        for name in out["assumptions"]:
            self.assertIn(name, text)
        self.assertIn("H100 PCIe", run(*words, "--gpu", "H20", code=USAGE).stderr)
        for kind in ("timestep", "identity"):
            conditional = self.folder / f"{kind}.json"
            conditional.write_text(json.dumps(NETWORK | {"class_embed_type": kind}))
            more = run_json("bench", "project", "--network", conditional)["parameters"]
            self.assertEqual(more > out["parameters"], kind == "timestep")

    def test_a_gpu_that_is_not_there_is_a_device_error(self):
        gpu = run_json("doctor")["machine"]
        self.assertEqual(gpu["gpu"] is None, "why_no_gpu" in gpu)
        self.assertIn("GPU", run("doctor").stdout)
        if gpu["gpu"] is not None:
            return
        for words in (["kernels"], ["noise"], ["sample"], ["step", "--case", "small"]):
            message = run("bench", *words, "--device", "cuda", code=DEVICE).stderr
            self.assertIn(gpu["why_no_gpu"], message)
        run("bench", "sample", "--precision", "tf32", code=USAGE)

    def test_doctor_without_a_network(self):
        out = run_json("doctor")
        self.assertIn(out["automatic_memory_format"], ("channels_first", "channels_last"))
        self.assertGreater(out["machine"]["cores"], 0)
        self.assertTrue(all(check["ok"] for check in out["checks"]), out["checks"])
        self.assertNotIn("network", out)

    def test_doctor_covers_every_parameter(self):
        network = run_json("doctor", *self.settings)["network"]
        self.assertEqual(network["covered_tensors"], network["trainable_tensors"])
        self.assertEqual(network["parameters"], network["trainable"] + network["frozen"])
        self.assertEqual(len({layer["layer"] for layer in network["layers"]}),
                         len(network["layers"]))
        asked = run_json("account", "--phase", "0.5:1:2", "--delta", network["plan"]["delta"])
        self.assertAlmostEqual(network["epsilon"], asked["epsilon"], places=9)
        self.assertFalse(self.run_folder.exists(), "doctor must not start a run")
        frozen = run_json("doctor", *self.settings, "model.trainable=conv_out.*")["network"]
        self.assertEqual(frozen["trainable_tensors"], 2)
        for algorithm in ("keep", "gram"):
            layers = run_json("doctor", *self.settings,
                              f"performance.layer_algorithm={algorithm}")["network"]["layers"]
            self.assertEqual({layer["algorithm"] for layer in layers}, {algorithm})

    def test_inspect_knows_every_kind(self):
        store = self.folder / "store"
        run("prepare", f"data.source={self.folder / 'images.gz'}",
            f"data.labels={self.folder / 'labels.gz'}", *self.settings[:4])
        found = run_json("inspect", store)
        self.assertEqual((found["kind"], found["records"], found["num_classes"]),
                         ("record_store", 24, 2))
        self.assertEqual(sum(found["records_per_class"]), 24)

        run("train", *self.settings, "performance.threads=1")
        found = run_json("inspect", self.run_folder)
        self.assertEqual(found["kind"], "run")
        self.assertEqual(found["ledger"]["charged_steps"], 2)
        self.assertEqual(found["newest_checkpoint"]["step"], 2)
        self.assertTrue(found["newest_checkpoint"]["complete"])

        ledger = run_json("inspect", self.run_folder / "ledger.jsonl")
        self.assertEqual((ledger["kind"], ledger["problems"]), ("ledger", []))
        renamed = self.folder / "renamed"
        renamed.write_bytes((self.run_folder / "ledger.jsonl").read_bytes())
        self.assertEqual(run_json("inspect", renamed)["kind"], "ledger")
        renamed.write_bytes(renamed.read_bytes().replace(b'"steps":2', b'"steps":3'))
        self.assertNotEqual(run_json("inspect", renamed)["problems"], [])

        checkpoint = next((self.run_folder / "private" / "checkpoints").glob("step_*"))
        self.assertEqual(run_json("inspect", checkpoint)["kind"], "run_checkpoint")
        weights = run_json("inspect", checkpoint / "model.safetensors")
        self.assertEqual(weights["kind"], "safetensors")
        self.assertEqual(weights["tensors"], len(weights["list"]))

        release = run_json("inspect", self.run_folder / "release")
        self.assertEqual(release["kind"], "network")
        self.assertEqual(release["config"]["block_out_channels"], [8, 8])
        self.assertIn("privacy_card", release)
        self.assertEqual((release["family"], release["class_name"], release["image_size"]),
                         ("diffusion", "UNet2DModel", [8, 8]))

        corpus = self.folder / "corpus"
        run("sample", self.run_folder, "--out", corpus, "--count", 4, "sample.steps=2")
        found = run_json("inspect", corpus)
        self.assertEqual((found["kind"], found["images"], found["finished"]), ("corpus", 4, True))

    def test_inspect_knows_both_networks_of_a_gan(self):
        folder = Path(__file__).resolve().parents[2] / "models/public/glyphs-gan"
        found = run_json("inspect", folder)
        other, = found.pop("beside")
        for network, name, role in ((found, "DCGANGenerator", "generator"),
                                    (other, "DCGANDiscriminator", "discriminator")):
            file = json.loads((folder / role / "config.json").read_text())
            self.assertEqual((network["family"], network["class_name"]), ("gan", name))
            self.assertEqual((network["image_size"], network["channels"], network["classes"]),
                             ([28, 28], 1, file["num_class_embeds"]))
            self.assertEqual(network["config"]["block_out_channels"], file["block_out_channels"])
            with open(folder / role / "diffusion_pytorch_model.safetensors", "rb") as weights:
                length, = struct.unpack("<Q", weights.read(8))
                tensors = json.loads(weights.read(length))
            tensors.pop("__metadata__", None)
            self.assertEqual(network["weights"]["tensors"], len(tensors))
            # One of the two by itself, which has no draws or no fakes.
            alone = run_json("inspect", folder / role)
            self.assertEqual((alone["class_name"], alone["weights"]), (name, network["weights"]))
        done = run("inspect", folder)
        self.assertEqual(done.stderr, "")  # no warning of another family's keys
        self.assertIn("28x28", done.stdout)
        strange = self.folder / "autoencoder"
        strange.mkdir()
        (strange / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
        message = run("inspect", strange, code=DATA).stderr
        self.assertIn("AutoencoderKL", message)
        self.assertIn("generator/config.json", message)

    def test_ledger_and_card_tell_the_same(self):
        store, folder = self.folder / "store_of_cards", self.folder / "run_of_cards"
        settings = [setting for setting in self.settings
                    if not setting.startswith(("data.store", "run.dir"))]
        settings += [f"data.store={store}", f"run.dir={folder}"]
        run("prepare", f"data.source={self.folder / 'images.gz'}",
            f"data.labels={self.folder / 'labels.gz'}", f"data.store={store}", *settings[:3])
        trained = json.loads(run("train", *settings, "performance.threads=1", "--json").stdout)

        found = run_json("ledger", "verify", folder)
        self.assertEqual((found["verdict"], found["problems"]), ("sound", []))
        self.assertEqual({check["name"]: check["outcome"] for check in found["checks"]},
                         dict.fromkeys(("ledger", "mechanism", "privacy card", "weights",
                                        "public facts", "release files", "stage results", "configuration", "initial weights",
                                        "checkpoints", "witness"), "passed"))
        self.assertEqual(found["statement"]["epsilon"], trained["epsilon"])
        table = run("ledger", "verify", folder).stdout
        for name in ("recomputed from the ledger", "witness", "passed"):
            self.assertIn(name, table)
        self.assertNotIn("not checked", table)
        self.assertIn(": sound\n", table)
        alone = run("ledger", "verify", folder / "ledger.jsonl", code=0)
        self.assertNotIn("DAMAGED", alone.stdout)
        copied = self.folder / "ledger_by_itself"
        copied.write_text((folder / "ledger.jsonl").read_text())
        bare = run("ledger", "verify", copied).stdout
        not_made = bare.count(" not checked: ")
        self.assertGreater(not_made, 0)
        self.assertIn(f": sound ({not_made} checks not made)\n", bare)
        for text in ("[" * 300000 + "\n", "{}\n", "\x00\x1b[2J", '{"kind":"\\u001b[2J"}\n'):
            copied.write_text(text)
            refused = run("ledger", "verify", copied, code=PRIVACY)
            self.assertIn("ledger_by_itself", refused.stderr)
            self.assertNotIn("\x1b[2J", refused.stdout + refused.stderr)
            self.assertNotIn("\x1b[2J", run("ledger", "show", copied).stdout)
        used = run_json("ledger", "show", store)
        self.assertEqual([use["charged_steps"] for use in used["runs"]], [2])
        self.assertAlmostEqual(used["together"]["epsilon"], trained["epsilon"], places=3)
        self.assertIn("adds up", run("ledger", "show", store).stdout)

        path = folder / "release" / "privacy_card.json"
        said = run_json("account", "--card", path)
        self.assertTrue(said["holds"])
        for line in said["recomputed"]:
            if line["accountant"] == said["claimed"]["accountant"]:
                self.assertAlmostEqual(line["epsilon"], trained["epsilon"], places=9)
        self.assertIn("The claim holds.", run("account", "--card", path).stdout)

        whole = json.loads(path.read_text())
        edited = self.folder / "edited_card.json"

        def account(code, **changes):
            edited.write_text(json.dumps({**whole, **changes}))
            return run("account", "--card", edited, code=code)
        self.assertIn("its stages cost",
                      account(PRIVACY, epsilon=whole["epsilon"] * (1 - 1e-5)).stderr)
        account(0, epsilon=whole["epsilon"] * (1 - 1e-8))  # rounding of another machine
        account(PRIVACY, delta=whole["delta"] / 10)
        account(PRIVACY, candidates=2)
        account(PRIVACY, stages=whole["stages"] * 2)
        curve = whole["epsilon_at_delta"]
        self.assertIn("epsilon_at_delta", account(
            PRIVACY, epsilon_at_delta=[{**curve[-1], "epsilon": curve[-1]["epsilon"] / 2}]).stderr)
        self.assertIn("at least", account(PRIVACY, epsilon_lower=whole["epsilon"] * 1.01).stderr)
        self.assertIn("charged 7 releases", account(
            PRIVACY, stages=[{**whole["stages"][-1], "charged": 7}]).stderr)
        for changes in ({"stages": []}, {"epsilon_at_delta": [3]}, {"sampler": "shuffle"}, {"accountant": "guess"},
                        {"candidates": 0}, {"stages": [{"mechanism": "magic"}]}):
            self.assertIn("edited_card.json", account(DATA, **changes).stderr)
        nothing = {"epsilon": None, "epsilon_lower": None, "delta": None, "order": None, "grid": None,
                   "selection": None, "recompute": None, "epsilon_at_delta": [],
                   "largest_true_positive_rate": []}
        self.assertIn("NOT PRIVATE", account(
            0, status="not_private", **nothing,
            statement="The model was trained without differential privacy: anything in its training "
                      "images may show in what is released.").stdout)
        self.assertIn("VOID", account(
            0, status="void", **nothing, statement="No privacy is claimed, because a condition of "
                                                   "the claim was not met.").stdout)
        self.assertIn("yet claims something", account(PRIVACY, status="void", epsilon=None).stderr)
        for changes in ({"statement": "Nobody can be recognised."}, {"summary": "all is well"},
                        {"not_covered": []}):
            self.assertIn(next(iter(changes)), account(PRIVACY, **changes).stderr)
        account(PRIVACY, status="void")
        run("account", "--card", self.folder / "nothing.json", code=DATA)
        run("account", "--delta", "1e-5", code=USAGE)

        path.write_text(json.dumps({**whole, "epsilon": whole["epsilon"] / 2}))
        refused = run("ledger", "verify", folder, code=PRIVACY)
        self.assertIn("failed", refused.stdout)
        self.assertIn("privacy_card.json", refused.stderr)

    def test_bad_input(self):
        for words in (["bench"], ["bench", "step", "--repeat", "0"],
                      ["bench", "step", "--layer-algorithm", "best"],
                      ["bench", "step", "--case", "huge"], ["doctor", "no.such=1"],
                      ["doctor", *self.settings, "model.trainable=nothing"], ["inspect"]):
            run(*words, code=USAGE)
        missing = self.folder / "missing"
        self.assertIn("missing", run("inspect", missing, code=DATA).stderr)
        strange = self.folder / "strange.txt"
        strange.write_text("hello")
        message = run("inspect", strange, code=DATA).stderr
        for kind in ("record store", "corpus", "ledger", "safetensors"):
            self.assertIn(kind, message)
        broken = self.folder / "broken.safetensors"
        broken.write_bytes(b"\xff" * 64)
        run("inspect", broken, code=DATA)
        run("bench", "step", "--network", strange, code=DATA)
        run("bench", "step", "--network", missing, code=DATA)

    def test_sample_looks_at_the_model_before_it_opens_the_device(self):
        model = self.folder / "no_weights"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(NETWORK))
        message = run("sample", model, "--out", self.folder / "none", "--count", 1,
                      "performance.device=cuda", code=DATA).stderr
        self.assertIn("no_weights", message)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sfumato", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="not needed: each test makes its own folder")
    SFUMATO = str(parser.parse_args().sfumato)
    unittest.main(argv=sys.argv[:1])
