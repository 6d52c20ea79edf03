"""The Kubernetes manifests: rendered, checked against schemas, and their pods played."""
import json
import re
import subprocess

import yaml

from .image import VERSION
from .machine import CannotRun, eventually, need, request

# Its kustomize has components, labels with includeTemplates, and replicas.
KUBECTL_MINOR = 27
OVERLAYS = ("dev", "production")
# Kinds that are not the API server's, each with the npm package that has its types.
CUSTOM = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "TriggerAuthentication": "@kubernetes-models/keda/keda.sh/v1alpha1/TriggerAuthentication",
    "PodMonitor": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
}
TYPES = [
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@kubernetes-models/base@6.0.1",
    "typescript@5.9.3",
]


def render(machine, overlay):
    """The documents of an overlay."""
    need("kubectl")
    words = ["kubectl", "version", "--client", "--output", "json"]
    version = json.loads(subprocess.run(words, capture_output=True, text=True).stdout)["clientVersion"]
    if int(version["minor"].rstrip("+")) < KUBECTL_MINOR:
        raise CannotRun(f"kubectl {version['gitVersion']} is too old to render; install 1.{KUBECTL_MINOR} or newer")
    words = ["kubectl", "kustomize", machine.root / "k8s/overlays" / overlay]
    text = subprocess.run(words, capture_output=True, text=True)
    assert text.returncode == 0, text.stderr
    return list(yaml.safe_load_all(text.stdout))


def manifests(machine):
    """Every manifest is valid for its schema, strictly: an unknown field fails."""
    rendered = {overlay: render(machine, overlay) for overlay in OVERLAYS}
    plain, custom = 0, []
    for overlay, documents in rendered.items():
        own = [document for document in documents if document["kind"] in CUSTOM]
        custom += own
        file = machine.folder / f"{overlay}.yaml"
        file.write_text(yaml.safe_dump_all(document for document in documents if document not in own))
        words = [machine.folder / "venv/bin/kubernetes-validate", "--strict", "--quiet", file]
        checked = subprocess.run(words, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        plain += len(documents) - len(own)
    assert {document["kind"] for document in custom} == set(CUSTOM)
    _check_custom(machine, custom)
    pods = sum(_check_pod(document) for documents in rendered.values() for document in documents)
    valid = f"{plain} documents of Kubernetes and {len(custom)} of KEDA and the Prometheus operator are valid"
    return f"{valid}; all {pods} pods are restricted"


def _check_custom(machine, documents):
    """Compiles the documents as literals of their TypeScript types, which refuse an unknown field."""
    need("node", "npm")
    folder = machine.folder / "types"
    folder.mkdir(exist_ok=True)
    if not (folder / "node_modules/typescript").exists():
        words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *TYPES]
        subprocess.run(words, check=True, capture_output=True, cwd=folder)
    lines = [f'import type {{ I{kind} }} from "{module}";' for kind, module in CUSTOM.items()]
    lines += [f"const d{at}: I{document['kind']} = {json.dumps(document)};" for at, document in enumerate(documents)]
    lines += [f"export default [{', '.join(f'd{at}' for at in range(len(documents)))}];"]
    (folder / "documents.ts").write_text("\n".join(lines) + "\n")
    words = ["node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022",
             "--module", "nodenext", "--moduleResolution", "nodenext", "documents.ts"]
    checked = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    assert checked.returncode == 0, checked.stdout


def _check_pod(document):
    """What the restricted pod security standard asks of a pod; 1 if the document has one."""
    if document["kind"] not in ("Deployment", "StatefulSet"):
        return 0
    pod = document["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}}, security
    return 1


def pods(machine):
    """The pods of the dev overlay, played by podman, which ignores Services and what needs a controller."""
    if "stack" in machine.state:
        machine.state.pop("stack").compose("down", "--volumes")
    rendered = render(machine, "dev")
    named = {document["metadata"]["name"]: document for document in rendered if document["kind"] == "Secret"}
    secrets = {name: document["stringData"] for name, document in named.items()}
    documents = [document for document in (_playable(document, secrets) for document in rendered) if document]
    machine.podman("network", "create", "leasehold-pods")
    for name in ("leasehold-redis", "leasehold-api", "leasehold-worker"):
        mine = [d for d in documents if d["kind"] not in ("Pod", "Deployment") or d["metadata"]["name"] == name]
        file = machine.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all(mine))
        # The alias is the name that the Service would have.
        machine.podman("play", "kube", "--network", f"leasehold-pods:alias={name}", file)
    url = f"http://{_address(machine, 'leasehold-api')}:8080"
    eventually("the API's pod is ready", lambda: request(f"{url}/readyz")[0] == 200)
    body = {"kind": "word-count", "payload": {"text": "one two three"}}
    status, text = request(f"{url}/api/v1/jobs", body)
    assert status == 202, f"{status} {text}"

    def completed():
        job = json.loads(request(f"{url}/api/v1/jobs/{json.loads(text)['id']}")[1])
        return job["state"] == "completed" and job["result"] == {"words": 3}

    eventually("the job is completed", completed)
    workers = json.loads(request(f"{url}/api/v1/workers")[1])["workers"]
    assert len(workers) == 2, workers
    return "the pods of Redis, the API and two workers run; Services, policies and autoscalers were not played"


def _address(machine, deployment):
    """The address of the first pod of a deployment."""
    names = machine.podman("ps", "--filter", f"pod={deployment}", "--format", "{{.Names}}").split()
    names = names or machine.podman("ps", "--filter", f"name={deployment}", "--format", "{{.Names}}").split()
    for name in names:
        for network in machine.inspect(name)["NetworkSettings"]["Networks"].values():
            if network["IPAddress"]:
                return network["IPAddress"]
    raise AssertionError(f"no pod of {deployment} has an address: {names}")


def _playable(document, secrets):
    """A document as podman 4.3 plays it: a StatefulSet as a Pod, images of this test, no probes.

    It would run probes by curl, and publish ports on this machine.
    """
    kind = document["kind"]
    if kind == "ConfigMap":
        return document
    if kind == "Secret":
        # It would mount a Secret's values in base64, and cannot set variables from them.
        data = secrets[document["metadata"]["name"]]
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"], "data": data}
    if kind not in ("Deployment", "StatefulSet"):
        return None
    pod = document["spec"]["template"]["spec"]
    for container in pod["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"):
            container.pop(probe, None)
        for variable in container.get("env", []):
            source = variable.pop("valueFrom")["secretKeyRef"]
            variable["value"] = secrets[source["name"]][source["key"]]
        name = re.sub(r"^.*/|:.*$", "", container["image"])
        container["image"] = f"localhost/{name}:{'test' if name == 'redis' else VERSION}"
    pod.pop("topologySpreadConstraints", None)
    for volume in pod["volumes"]:
        if "secret" in volume:
            volume["configMap"] = {"name": volume.pop("secret")["secretName"]}
    if kind == "Deployment":
        return document
    claims = document["spec"]["volumeClaimTemplates"]
    pod["volumes"] += [{"name": claim["metadata"]["name"], "emptyDir": {}} for claim in claims]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": document["metadata"], "spec": pod}
