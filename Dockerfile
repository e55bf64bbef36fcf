# femur3d with its models; at run time it needs no network and no root.
#
#     docker build -t femur3d .
#     docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD/scans:/in:ro" -v "$PWD/out:/out" femur3d -i /in -o /out
#
# For an NVIDIA GPU (NVIDIA Container Toolkit): docker build --build-arg EXTRAS=dicomseg,gpu -t femur3d:gpu .
# and docker run --gpus all … femur3d:gpu …
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ARG EXTRAS=dicomseg,cluster
COPY . /src
RUN python -m venv /opt/femur3d \
    && /opt/femur3d/bin/pip install --no-cache-dir "/src[${EXTRAS}]" \
    && /opt/femur3d/bin/python -m compileall -q /opt/femur3d/lib

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/femur3d /opt/femur3d
RUN useradd --uid 1000 --create-home femur3d && mkdir /out && chown femur3d /out
# Any user may run it, one without a home as well: what libraries keep goes to /tmp.
ENV PATH=/opt/femur3d/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /tmp
ENTRYPOINT ["femur3d"]
CMD ["--help"]
