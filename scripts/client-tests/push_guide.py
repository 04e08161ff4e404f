"""Puts a model file into a registry under a name, as its publisher would. Usage: push_guide.py REGISTRY FILE NAME"""

import hashlib
import json
import sys
import urllib.request

registry, file, name = sys.argv[1:]
repository = f"{registry}/v2/library/{name}"


def send(method, address, data, headers):
    return urllib.request.urlopen(urllib.request.Request(address, data=data, method=method, headers=headers))


def blob(media_type, data):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    place = send("POST", f"{repository}/blobs/uploads/", b"", {}).headers["Location"]
    mark = "&" if "?" in place else "?"
    send("PUT", f"{place}{mark}digest={digest}", data, {"Content-Type": "application/octet-stream"})
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


config = {
    "model_format": "gguf", "model_family": "qwen3", "model_families": ["qwen3"], "model_type": "3.5M", "file_type": "Q8_0",
    "architecture": "amd64", "os": "linux",
}
with open(file, "rb") as opened:
    weights = opened.read()
manifest_type = "application/vnd.docker.distribution.manifest.v2+json"
manifest = {
    "schemaVersion": 2,
    "mediaType": manifest_type,
    "config": blob("application/vnd.docker.container.image.v1+json", json.dumps(config).encode()),
    "layers": [blob("application/vnd.ollama.image.model", weights)],
}
send("PUT", f"{repository}/manifests/latest", json.dumps(manifest).encode(), {"Content-Type": manifest_type})
