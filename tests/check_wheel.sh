#!/usr/bin/env bash
# Use the installed wheel as a stranger does, from a folder that holds no source: run by .ci/run.
set -euo pipefail

where=$(python -c 'import zoo, zoo_core, zoo_vit; print(zoo.__file__)')
case "$where" in "$PWD"/venv/*) ;; *) echo "zoo was imported from $where, not from the wheel" >&2; exit 1 ;; esac

zoo --version
zoo list > /dev/null
zoo info vit-b16 > /dev/null
zoo plugins --json | python -c 'import json, sys; assert all(one["status"] == "ok" for one in json.load(sys.stdin))'
python - <<'PY'
import zoo
from PIL import Image

model = zoo.build("digits-tiny", pretrained="demo")
Image.new("L", (64, 64)).save("black.png")
assert model.encode_image("black.png", normalize=True).shape == (1, model.config.embed_dim)
PY
zoo classify black.png --labels zero,one > /dev/null
python -m pytest -q -p no:cacheprovider --rootdir tests tests/test_configs.py tests/test_clip_bpe.py tests/test_clip.py
