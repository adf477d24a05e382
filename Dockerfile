# The operator's image: `docker build -t perfpolicy:0.1.0 .`, or `buildah bud`. docs/image.md says what is in it and why.
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG VERSION=0.1.0
WORKDIR /source
COPY requirements/runtime.txt requirements/image.txt requirements/
# Where packages come from is the builder's business and stays out of the image: both secrets are optional.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=pip.crt,target=/etc/pip.crt \
    python3 -m venv /tools \
    && /tools/bin/pip install --quiet --no-cache-dir --require-hashes --only-binary :all: -r requirements/image.txt \
    && python3 -m venv --without-pip /opt/perfpolicy \
    && /tools/bin/pip --python /opt/perfpolicy/bin/python3 install --quiet --no-cache-dir --no-compile --require-hashes --only-binary :all: \
        -r requirements/runtime.txt \
    # Compiled here, because nothing can be written where the operator runs; by content, because file times do not survive every registry.
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/perfpolicy/lib
COPY pyproject.toml README.md LICENSE ./
COPY templates templates
COPY operator operator
RUN /tools/bin/pip --python /tools/bin/python3 wheel --quiet --no-index --no-build-isolation --no-deps --wheel-dir /wheel . \
    && /tools/bin/pip --python /opt/perfpolicy/bin/python3 install --quiet --no-index --no-deps --no-compile /wheel/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/perfpolicy/lib/python3*/site-packages/perfpolicy \
    && /tools/bin/cyclonedx-py environment --output-reproducible --mc-type application --pyproject pyproject.toml \
        --output-file /opt/perfpolicy/sbom.cdx.json /opt/perfpolicy/bin/python3 \
    && test "$(/opt/perfpolicy/bin/perfpolicy --version)" = "perfpolicy, version ${VERSION}"

# `docker build --target sbom --output . .` writes the bill of materials next to you.
FROM scratch AS sbom
COPY --from=build /opt/perfpolicy/sbom.cdx.json /

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="perfpolicy" \
      org.opencontainers.image.description="Kubernetes operator for PerformancePolicies" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing is installed into a running operator.
RUN find /usr/lib /usr/local -depth \( -name pip -o -name 'pip[0-9.]*' -o -name 'pip-*' -o -name ensurepip -o -name python-wheels \) -exec rm -rf {} +
COPY --from=build /opt/perfpolicy /opt/perfpolicy
ENV PATH="/opt/perfpolicy/bin:${PATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["perfpolicy"]
CMD ["run"]
