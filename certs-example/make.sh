#!/bin/sh
# Makes the example PKI anew: a root CA, a server certificate for localhost, a client certificate.
#
#   sh make.sh [FOLDER]      FOLDER is where this script stands unless it is given; it must exist
#
# Needs OpenSSL; tried with 3.0. The keys are not encrypted, and the committed ones are public: never use them.
set -eu

folder=${1:-$(dirname "$0")}
days=3650
organisation='mtlskit example - not for production'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077

# 1. The root: it may sign certificates and revocation lists, directly (pathlen:0), and nothing else.
openssl ecparam -name prime256v1 -genkey -noout -out "$work/ca.ec"
openssl pkey -in "$work/ca.ec" -out "$work/ca.key"
cat > "$work/ca.cnf" <<END
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
O = $organisation
CN = mtlskit example CA
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
openssl req -x509 -new -sha256 -config "$work/ca.cnf" -days "$days" -key "$work/ca.key" -out "$work/ca.crt"

# 2. A leaf: its key, a request, and what the root makes of it. The serial is random, as RFC 5280 wants it unique.
issue() { # name, common name, extended key usage, further extension lines
    openssl ecparam -name prime256v1 -genkey -noout -out "$work/$1.ec"
    openssl pkey -in "$work/$1.ec" -out "$work/$1.key"
    openssl req -new -sha256 -key "$work/$1.key" -subj "/O=$organisation/CN=$2" -out "$work/$1.csr"
    cat > "$work/$1.cnf" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $3
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
$4
END
    openssl x509 -req -sha256 -in "$work/$1.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" \
        -set_serial "0x$(openssl rand -hex 16)" -days "$days" -extfile "$work/$1.cnf" -out "$work/$1.crt"
}
issue server localhost serverAuth 'subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1'
issue client example-client clientAuth ''

# 3. Nothing is put in place that does not verify.
openssl verify -x509_strict -CAfile "$work/ca.crt" -purpose sslserver "$work/server.crt"
openssl verify -x509_strict -CAfile "$work/ca.crt" -purpose sslclient "$work/client.crt"

for name in ca server client; do
    cp "$work/$name.crt" "$work/$name.key" "$folder/"
    chmod 644 "$folder/$name.crt"
    chmod 600 "$folder/$name.key"
done
