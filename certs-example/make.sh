#!/bin/sh
# Makes the example PKI anew: a root CA, a server certificate for localhost, a client certificate.
#
#   sh make.sh [FOLDER]      FOLDER is where this script stands unless it is given; it must exist
#
# Needs mtlskit, and OpenSSL for a second opinion. The keys are not encrypted, and the committed ones are public: never
# use them.
set -eu

folder=${1:-$(dirname "$0")}
organisation='mtlskit example - not for production'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# 1. The root: it may sign certificates and revocation lists, directly (pathlen:0), and nothing else.
mtlskit ca init --dir "$work/ca" --subject "CN=mtlskit example CA,O=$organisation" --lifetime 3650d

# 2. A leaf: its key, a request, and what the root makes of it. It ends a day before the root.
issue() { # name, common name, profile, alternative names
    name=$1 subject="CN=$2,O=$organisation" profile=$3
    shift 3
    mtlskit keys new --out "$work/$name.key"
    mtlskit csr new --key "$work/$name.key" --subject "$subject" --for "$profile" "$@" --out "$work/$name.csr"
    mtlskit ca sign "$work/$name.csr" --dir "$work/ca" --profile "$profile" --lifetime 3649d --out "$work/$name.crt"
}
issue server localhost server --san DNS:localhost --san IP:127.0.0.1 --san IP:::1
issue client example-client client

# 3. Nothing is put in place that does not verify.
openssl verify -x509_strict -CAfile "$work/ca/ca.crt" -purpose sslserver "$work/server.crt"
openssl verify -x509_strict -CAfile "$work/ca/ca.crt" -purpose sslclient "$work/client.crt"

cp "$work/ca/ca.crt" "$work/ca/ca.key" "$work/"
for name in ca server client; do
    cp "$work/$name.crt" "$work/$name.key" "$folder/"
    chmod 644 "$folder/$name.crt"
    chmod 600 "$folder/$name.key"
done
