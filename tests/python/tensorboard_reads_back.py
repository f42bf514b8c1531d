"""Reads TensorBoard events with the `tensorboard` package and compares them with what is expected.

    tensorboard_reads_back.py FOLDER TAG STEP VALUE [TAG STEP VALUE ...]
    tensorboard_reads_back.py FOLDER --image TAG STEP HEIGHT WIDTH ...

VALUE may be `any`. Exits with 1 and says why if an event is missing or differs.
"""

import math
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def check_scalar(events, tag, step, value):
    if tag not in events.Tags()["scalars"]:
        return f"no scalar {tag!r}; there are {events.Tags()['scalars']}"
    found = {event.step: event.value for event in events.Scalars(tag)}
    if int(step) not in found:
        return f"{tag}: no step {step}; there are {sorted(found)[:20]}"
    got = found[int(step)]
    if value != "any" and not math.isclose(got, float(value), rel_tol=1e-6, abs_tol=1e-30):
        return f"{tag} at step {step}: {got}, expected {value}"
    return None


def check_image(events, tag, step, height, width):
    if tag not in events.Tags()["images"]:
        return f"no image {tag!r}; there are {events.Tags()['images']}"
    for image in events.Images(tag):
        if image.step == int(step):
            if (image.height, image.width) != (int(height), int(width)):
                return f"{tag} at step {step}: {image.height} x {image.width}"
            if not image.encoded_image_string.startswith(b"\x89PNG\r\n\x1a\n"):
                return f"{tag} at step {step}: not a PNG"
            return None
    return f"{tag}: no step {step}"


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    events = EventAccumulator(arguments[0], size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    rest = arguments[1:]
    checks = 0
    while rest:
        is_image = rest[0] == "--image"
        count = 5 if is_image else 3
        if len(rest) < count:
            sys.exit(__doc__)
        wanted, rest = rest[:count], rest[count:]
        defect = check_image(events, *wanted[1:]) if is_image else check_scalar(events, *wanted)
        if defect:
            sys.exit(defect)
        checks += 1
    print(f"{checks} events as expected")


if __name__ == "__main__":
    main(sys.argv[1:])
