# The image for users. go run ./hack/image makes the same one without Docker,
# and its test compares the two.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w" -o /out/ ./cmd/director ./cmd/realserver

# Nothing but the programs: they are static, call no other program, and take
# certificates from the service account.
FROM scratch
COPY --from=build /out/director /director
COPY --from=build /out/realserver /realserver
# Root without capabilities but those that the pod adds: sysctls are files of
# root.
USER 0
ENTRYPOINT ["/director"]
