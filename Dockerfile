# syntax=docker/dockerfile:1
# Millrace and its shipped SmartModules in a small image, run by a user without rights.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches outlive the build, so that a change of the sources compiles Millrace alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin millrace && cp target/release/millrace /millrace

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/millrace --create-home millrace
COPY --from=build /millrace /usr/local/bin/millrace
COPY LICENSE /usr/share/doc/millrace/LICENSE
COPY pipelines.yaml /etc/millrace/pipelines.yaml
COPY smartmodules/dist /etc/millrace/smartmodules/dist
USER millrace
WORKDIR /var/lib/millrace
EXPOSE 9464
# The image has no HTTP client; bash speaks enough of it.
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=6 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ code _ <&3 && [ \"$code\" = 200 ]"]
ENTRYPOINT ["millrace"]
CMD ["run", "-f", "/etc/millrace/pipelines.yaml", "--listen", "0.0.0.0:9464"]
