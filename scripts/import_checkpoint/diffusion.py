"""From a state dict of the EDM family to the files of UNet2DModel; scripts/import-checkpoint calls it."""
from import_checkpoint import edm, ncsnpp
from import_checkpoint.tensors import Refused, Tensors, plain_name, plain_names


def is_one(state):
    names = {plain_name(name) for name in state}
    return "map_layer0.weight" in names or any(ncsnpp.MODULE.match(name) for name in names)


def convert(state, facts, image_size=None, sigma_data=None):
    """(config.json, tensors, scheduler_config.json, kind, what was assumed). Refused says what is in the way."""
    tensors = Tensors(plain_names(state))
    of = edm.converted if tensors.has("map_layer0.weight") else ncsnpp.converted
    config, kind, usual, notes = of(tensors, facts)
    made = {name: tensor.contiguous() for name, tensor in tensors.finish().items()}
    if image_size and config.get("sample_size", image_size) != image_size:
        raise Refused(f"its names say images of {config['sample_size']} pixels, and --image-size {image_size}")
    if image_size:
        config["sample_size"] = image_size
    if "sample_size" not in config:
        notes.append("nothing says of which size images are: --image-size notes it")
    if config["out_channels"] != config["in_channels"]:
        raise Refused(f"makes {config['out_channels']} channels of {config['in_channels']}: a learned variance")
    data = sigma_data or facts.get("sigma_data")
    if not data:
        data = usual
        notes.append(f"sigma_data taken to be {usual:.6g}; --sigma-data says otherwise")
    scheduler = {"_class_name": "EDMEulerScheduler", "_diffusers_version": "0.31.0",
                 "prediction_type": "epsilon", "rho": 7.0, "sigma_data": float(data), "sigma_max": 80.0,
                 "sigma_min": 0.002}
    return config, made, scheduler, kind, notes
