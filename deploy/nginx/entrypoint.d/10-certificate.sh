#!/bin/sh
# Makes a self-signed certificate at the first start; the nginx image runs this before nginx. The
# volume keeps it, so that browsers need to be told only once that it is to be trusted. Put
# certificate.pem and key.pem of your own there to use those instead.
set -eu

directory=/etc/nginx/certificate
if [ -s "$directory/certificate.pem" ] && [ -s "$directory/key.pem" ]; then
    exit 0
fi
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 \
    -keyout "$directory/key.pem" -out "$directory/certificate.pem" 2>/dev/null
echo "made a self-signed certificate for localhost"
