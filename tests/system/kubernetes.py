#!/usr/bin/env python3
"""deploy/kubernetes: every document fits the schema that Kubernetes and Kubeflow Trainer publish (with no
key they do not know), overlays are merged as kustomize does, and the program takes the arguments.
"""
import copy
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from rank_runs import bare_environment, free_port, small_run, verify
from sfumato_cli import DATA, ROOT, check, ledger_charges, main, prepare_small_store
from sweep_files import check_done, runs_of, write_sweep

FOLDER = ROOT / "deploy/kubernetes"
VERSIONS = ("1.31", "1.37")
TRAINER = {"TrainJob": "trainer_v1alpha1_train_job", "TrainingRuntime": "trainer_v1alpha1_training_runtime"}


def documents(path: Path) -> list[dict]:
    import yaml
    return list(yaml.safe_load_all(path.read_text()))


def merged(base, patch):
    """A strategic merge: lists of what has names are merged by name, others are replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}
    if isinstance(base, list) and isinstance(patch, list) and all(
            isinstance(each, dict) and "name" in each for each in base + patch):
        by_name = {each["name"]: each for each in base}
        for each in patch:
            by_name[each["name"]] = merged(by_name.get(each["name"]), each)
        return list(by_name.values())
    return copy.deepcopy(patch)


def kustomized(folder: Path) -> list[dict]:
    """What `kubectl kustomize` makes of a folder, as far as these files use it."""
    kustomization, = documents(folder / "kustomization.yaml")
    known = {"apiVersion", "kind", "resources", "patches", "images", "configMapGenerator"}
    check(set(kustomization) <= known, f"{folder.name}: {set(kustomization) - known}")
    found = []
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        found += kustomized(path) if path.is_dir() else documents(path)
    for generator in kustomization.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in generator["files"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]},
                      "data": data})
    for patch in kustomization.get("patches", []):
        change, = documents(folder / patch["path"])
        places = [index for index, each in enumerate(found) if each["kind"] == change["kind"] and
                  each["metadata"]["name"] == change["metadata"]["name"]]
        check(len(places) == 1, f"{folder.name}/{patch['path']} changes {len(places)} documents")
        found[places[0]] = merged(found[places[0]], change)
    return found


def check_schema(document: dict, folder: str) -> None:
    """Published schemas, those of Kubernetes with unknown keys refused."""
    import importlib

    import kubernetes_validate
    if document["kind"] in TRAINER:
        module = importlib.import_module(f"kubeflow_trainer_api.models.{TRAINER[document['kind']]}")
        model = getattr(module, "TrainerV1alpha1" + document["kind"])
        # Keys that the model does not know do not come back.
        read = model.from_dict(copy.deepcopy(document)).to_dict()
        check(read == document, f"{folder}: {document['kind']} is read as\n{read}\nof\n{document}")
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            check(False, f"{folder}: {document['kind']} for Kubernetes {version}: {error.message}")


def pod_of(documents_: list[dict]) -> tuple[dict, dict, list[str]]:
    """Pod, its container and the arguments of the one training among the documents."""
    for document in documents_:
        if document["kind"] == "Job":
            pod = document["spec"]["template"]["spec"]
            return pod, pod["containers"][0], pod["containers"][0]["args"]
        if document["kind"] == "TrainingRuntime":
            pod = document["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
            job, = (each for each in documents_ if each["kind"] == "TrainJob")
            check(job["spec"]["runtimeRef"]["name"] == document["metadata"]["name"], "another runtime")
            return pod, pod["containers"][0], job["spec"]["trainer"]["args"]
    raise KeyError("no training")


def check_pod(folder: str, found: list[dict]) -> list[str]:
    """What the documentation promises of every training."""
    pod, container, arguments = pod_of(found)
    check(pod["terminationGracePeriodSeconds"] >= 60, f"{folder}: the time after SIGTERM")
    check(pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"],
          f"{folder}: rights")
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
    check(mounts["/private"]["persistentVolumeClaim"]["claimName"] == "sfumato-private", f"{folder}: /private")
    check("command" not in container, f"{folder}: a command in the place of the image's, which gets SIGTERM")
    return arguments


def check_arguments(sfumato, arguments: list[str], work: Path) -> None:
    """The program reads them and the configuration; what it lacks is the store."""
    replaced = [part.replace("/config/", f"{FOLDER}/base/").replace("/private/", f"{work}/none/")
                for part in arguments]
    said = sfumato.run(*replaced, expect=DATA).stderr
    check(f"{work}/none/store" in said, said)


def check_pods_find_each_other(sfumato, found: list[dict], work: Path) -> None:
    """Processes in the environment of the pods take a run together; but for the address all is the
    documents'."""
    job, = (each for each in found if each["kind"] == "Job")
    service, = (each for each in found if each["kind"] == "Service")
    container = job["spec"]["template"]["spec"]["containers"][0]
    given = {each["name"]: each["value"] for each in container["env"]}
    size = job["spec"]["completions"]
    check(given["WORLD_SIZE"] == str(size) == str(job["spec"]["parallelism"]), f"{given}, {size}")
    name = service["metadata"]["name"]
    check(job["spec"]["template"]["spec"]["subdomain"] == name, "another subdomain than the Service's")
    check(given["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{name}", f"{given}")
    check(service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items(),
          "the Service selects other pods")
    run = work / "pods"
    arguments = small_run(prepare_small_store(sfumato, work), run, steps=3)
    port = free_port()
    pods = [sfumato.start("train", *arguments, log=work / f"pod{index}.log",
                          environment=bare_environment() | given | {
                              "JOB_COMPLETION_INDEX": str(index), "MASTER_ADDR": "127.0.0.1",
                              "MASTER_PORT": str(port)})
            for index in range(size)]
    found_statuses = [pod.wait(timeout=120) for pod in pods]
    check(found_statuses == [0] * size, f"{found_statuses}; see {work}/pod*.log")
    verify(sfumato, run, 3)
    check(len(ledger_charges(run)) == 3, "each pod trained for itself")


def check_sweep_job(sfumato, work: Path) -> None:
    """What `sweep kubernetes` prints fits the schema and its pods are those of the folder; as many processes in
    their environment share the runs."""
    own = work / "sweep"
    own.mkdir()
    file = write_sweep(own, prepare_small_store(sfumato, own), "Pods_2", "  purpose: ablation\n  repeat: 3\n", 3)
    text = subprocess.run([sfumato.binary, "sweep", "kubernetes", file, "--tasks", "2", "--image", "registry/a:b"],
                          cwd=own, check=True, capture_output=True, text=True).stdout
    (own / "job.yaml").write_text(text)
    job, = documents(own / "job.yaml")
    check_schema(job, "sweep kubernetes")
    arguments = check_pod("sweep kubernetes", [job])
    for index in range(job["spec"]["completions"]):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in arguments]
        subprocess.run([sfumato.binary, *words], cwd=own, check=True, capture_output=True,
                       env=bare_environment() | {"JOB_COMPLETION_INDEX": str(index)})
    check_done(runs_of(own, "Pods_2"), 3, 3)


def check_kubernetes(sfumato, work: Path, _):
    try:
        import kubeflow_trainer_api
        import kubernetes_validate
        import yaml
    except ImportError as error:
        return f"{error} (tests/python/requirements.txt)"
    folders = sorted(path.parent for path in FOLDER.glob("*/kustomization.yaml"))
    check([folder.name for folder in folders] == ["base", "gpu", "kubeflow", "ranks"], f"{folders}")
    for folder in folders:
        used = set(folder.glob("*.yaml")) - {folder / "kustomization.yaml"}
        text = (folder / "kustomization.yaml").read_text()
        check(all(path.name in text for path in used), f"{folder.name}: a file is in no list")
        found = kustomized(folder)
        for document in found:
            check_schema(document, folder.name)
        arguments = check_pod(folder.name, found)
        check_arguments(sfumato, arguments, work)
        if folder.name == "ranks":
            check_pods_find_each_other(sfumato, found, work)
    check_sweep_job(sfumato, work)


if __name__ == "__main__":
    main(check_kubernetes, __doc__.splitlines()[0])
