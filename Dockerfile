# Leasehold's images. The targets, each on top of the one before:
#   leasehold  the three programs, for the API and for workers of built-in kinds (the default)
#   python     and Python, for kinds whose command is a Python script
#   full       and Chromium, for the commands of examples/kinds.toml
#
#   docker build -t leasehold:0.2.0 .
#   docker build --target python -t leasehold-python:0.2.0 .
#
# Both base images can be replaced, by a mirror's or by one of your own.
ARG RUST_IMAGE=docker.io/library/rust:1-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
# A folder with the three binaries, stripped; then nothing is compiled. The folder is in the build context, or mounted
# (podman build --volume).
ARG PREBUILT=
WORKDIR /src
COPY . .
RUN set -eu; \
    mkdir -p /out/bin /out/files; \
    if [ -z "$PREBUILT" ]; then \
        CARGO_PROFILE_RELEASE_STRIP=symbols cargo build --release --locked \
            -p leasehold-api -p leasehold-worker -p leasehold-cli; \
        PREBUILT=target/release; \
    fi; \
    for program in leasehold leasehold-api leasehold-worker; do \
        install -m 755 "$PREBUILT/$program" /out/bin/; \
    done; \
    rm -rf target

FROM ${DEBIAN_IMAGE} AS leasehold
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/bin/ /usr/local/bin/
COPY redis.conf /usr/share/leasehold/redis.conf
# The file store of `storage_url = "file:///var/lib/leasehold/files"`: a new named volume takes its owner from here.
COPY --from=build --chown=10001:10001 /out/files/ /var/lib/leasehold/files/
# The programs read leasehold.toml of the working directory.
WORKDIR /etc/leasehold
ENV HOME=/tmp SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 10001:10001
EXPOSE 8080 9190
# Asks the API at api.listen. For a worker: ["leasehold", "health", "--worker"].
HEALTHCHECK --interval=10s --timeout=12s --start-period=30s CMD ["leasehold", "health"]
CMD ["leasehold-api"]

FROM leasehold AS python
USER 0:0
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM python AS full
USER 0:0
RUN apt-get update \
    && apt-get install -y --no-install-recommends chromium fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*
COPY examples/ /usr/share/leasehold/examples/
USER 10001:10001

FROM leasehold
