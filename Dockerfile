# The fluxasync command in a container, with the simulator's images, uvloop and object stores.
#
#   docker build -t fluxasync .
#   docker run --rm -e COMETAPI_KEY -v "$PWD:/data" --user "$(id -u):$(id -g)" \
#     fluxasync run prompts.txt -o images --max-cost 5
#
# compose.yaml has the simulator beside a run, for nothing.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY fluxasync fluxasync
# into a folder of its own, which the last stage copies: no pip cache and no sources stay behind
RUN pip install --no-cache-dir --prefix=/install '.[cli,image,speed,store]'

FROM python:3.13-slim
COPY --from=build /install /usr/local
# a user of its own; any other one (--user) works too, because nothing in the image is written to
RUN useradd --uid 10001 --create-home fluxasync && install -d -o fluxasync -g fluxasync /data
# what can be made again, such as the durations that earlier runs learned
ENV XDG_CACHE_HOME=/tmp/cache
USER 10001
WORKDIR /data
# docker stop sends SIGTERM: nothing more is submitted, and paid images may land for ten seconds
STOPSIGNAL SIGTERM
ENTRYPOINT ["fluxasync"]
CMD ["--help"]
