"""The images: Debian's base, the services from Debian's packages, and Leasehold's from its Dockerfile."""
import shutil
import subprocess
import tomllib
from pathlib import Path

from .machine import CannotRun, need

DEBIAN = "localhost/debian:bookworm-slim"
ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
NEXT = f"{VERSION}-next"
# In place of the images of Redis, HAProxy and Prometheus, with the users and paths that those have.
SERVICES = f"""FROM {DEBIAN} AS redis
RUN groupadd -r -g 999 redis && useradd -r -g redis -u 999 redis \\
    && apt-get update && apt-get install -y --no-install-recommends redis-server \\
    && mkdir /data && chown redis:redis /data
VOLUME /data
CMD ["redis-server"]
FROM {DEBIAN} AS haproxy
RUN apt-get update && apt-get install -y --no-install-recommends haproxy
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
FROM {DEBIAN} AS prometheus
RUN apt-get update && apt-get install -y --no-install-recommends prometheus \\
    && mkdir -p /prometheus && chown nobody /prometheus
USER nobody
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
"""


def base_images(machine):
    """Debian's base image and those of the services, unless they are there."""
    if not machine.podman("images", "--quiet", DEBIAN):
        print("--- base image, by debootstrap", flush=True)
        base = machine.folder / "base"
        words = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", base]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        archive = subprocess.Popen(["tar", "-C", base, "-c", "."], stdout=subprocess.PIPE)
        words = [machine.program, "import", "--quiet", "--change", path, "-", DEBIAN]
        subprocess.run(words, stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(base)
    context = machine.folder / "empty"
    context.mkdir(exist_ok=True)
    (machine.folder / "Services").write_text(SERVICES)
    for service in ("redis", "haproxy", "prometheus"):
        if not machine.podman("images", "--quiet", f"localhost/{service}:test"):
            print(f"--- image of {service}, from Debian's package", flush=True)
            build = ["build", "--quiet", "--network", "host", "--file", machine.folder / "Services"]
            machine.podman(*build, "--target", service, "--tag", f"localhost/{service}:test", context, limit=600)


def prepare(machine, binaries):
    """Builds the images that are not there yet; Leasehold's always."""
    need("podman", "buildah", "runc", "debootstrap", "strip", "unshare")
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise CannotRun(f"this machine runs no containers: {tried.stderr.strip()}")
    try:
        base_images(machine)
    except (RuntimeError, subprocess.SubprocessError) as failure:
        raise CannotRun(f"no base images can be made of Debian's packages: {failure}") from failure
    stripped = machine.folder / "prebuilt"
    stripped.mkdir(exist_ok=True)
    for program in ("leasehold", "leasehold-api", "leasehold-worker"):
        shutil.copy(binaries / program, stripped / program)
        subprocess.run(["strip", stripped / program], check=True)
    print("--- images of Leasehold, from its Dockerfile", flush=True)
    build = ["build", "--quiet", "--format", "docker", "--network", "host", "--volume", f"{stripped}:/prebuilt:ro"]
    for argument in ("PREBUILT=/prebuilt", f"RUST_IMAGE={DEBIAN}", f"DEBIAN_IMAGE={DEBIAN}"):
        build += ["--build-arg", argument]
    for target, name in (("leasehold", "leasehold"), ("python", "leasehold-python"), ("full", "leasehold-full")):
        image = f"localhost/{name}:{VERSION}"
        machine.podman(*build, "--target", target, "--tag", image, machine.root, limit=600)
        machine.podman("tag", image, f"localhost/{name}:{NEXT}")
    # The compose file names them without a registry.
    shutil.rmtree(stripped)


def image(machine):
    """The image by itself: read-only, not root, without curl, with a health check, and reaping as process 1."""
    shown = machine.inspect(f"localhost/leasehold:{VERSION}")
    config = shown["Config"]
    assert config["User"] == "10001:10001", config["User"]
    check = shown.get("Healthcheck") or config["Healthcheck"]
    assert check["Test"] == ["CMD", "leasehold", "health"], check
    run = ["run", "--rm", "--read-only", "--cap-drop", "all", "--tmpfs", "/tmp", "--network", "none"]
    name = f"localhost/leasehold:{VERSION}"
    for program in ("leasehold", "leasehold-api", "leasehold-worker"):
        assert VERSION in machine.podman(*run, name, program, "--version", limit=30)
    for absent in ("curl", "wget"):
        assert not machine.podman(*run, name, "sh", "-c", f"command -v {absent} || true", limit=30), absent
    certificates = machine.podman(*run, name, "grep", "-c", "BEGIN CERT", "/etc/ssl/certs/ca-certificates.crt")
    assert int(certificates) > 50, certificates
    machine.podman(*run, name, "test", "-r", "/usr/share/leasehold/redis.conf")
    _ends_as_its_program(machine, name)
    return f"user {config['User']}, {certificates} certificate authorities, process 1 forwards SIGTERM"


def _ends_as_its_program(machine, name):
    container = machine.podman("run", "--detach", "--read-only", "--network", "none", name, "leasehold-worker")
    tree = machine.podman("top", container, "pid", "comm")
    assert tree.count("leasehold-worke") == 2, tree
    machine.podman("stop", "--time", "20", container)
    state = machine.inspect(container)["State"]
    machine.podman("rm", container)
    assert state["ExitCode"] in (0, 1), state
